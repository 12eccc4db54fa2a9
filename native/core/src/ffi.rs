//! All of this crate's `unsafe`: what the C API offers and pyo3 does not, behind safe functions.

#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
#[cfg(not(feature = "limited"))]
use std::ffi::CString;
use std::ffi::{CStr, c_int, c_long, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
#[cfg(not(feature = "limited"))]
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PySystemError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict, PyList, PyMemoryView, PyModule, PyString, PyTuple};

use crate::interpreter::Interpreter;
use crate::question::Asker;
use crate::ticket::Ticket;

// ---------------------------------------------------------------------------------------------
// What the limited API has under other names, or lacks until later versions

#[cfg(not(feature = "limited"))]
mod api {
    use pyo3::ffi;
    pub use pyo3::ffi::{
        PY_VECTORCALL_ARGUMENTS_OFFSET, PyList_SET_ITEM as list_set_item, PyObject_Vectorcall as vectorcall,
        PyTuple_SET_ITEM as tuple_set_item,
    };

    /// # Safety
    /// The object must be alive.
    pub unsafe fn is_coroutine(object: *mut ffi::PyObject) -> bool {
        // SAFETY: only compares the object's type.
        unsafe { ffi::PyCoro_CheckExact(object) != 0 }
    }
}

#[cfg(feature = "limited")]
mod api {
    use pyo3::ffi;
    pub use pyo3::ffi::{PyList_SetItem as list_set_item, PyTuple_SetItem as tuple_set_item};

    pub const PY_VECTORCALL_ARGUMENTS_OFFSET: usize = 1 << (usize::BITS - 1);

    // Part of every CPython from 3.9 on, and of the limited API from 3.12 on, with this type.
    unsafe extern "C" {
        #[link_name = "PyObject_Vectorcall"]
        pub fn vectorcall(
            callable: *mut ffi::PyObject,
            arguments: *const *mut ffi::PyObject,
            count: usize,
            names: *mut ffi::PyObject,
        ) -> *mut ffi::PyObject;

        static mut PyCoro_Type: ffi::PyTypeObject;
    }

    /// # Safety
    /// The object must be alive.
    pub unsafe fn is_coroutine(object: *mut ffi::PyObject) -> bool {
        // SAFETY: only compares the object's type with the address of one that every CPython has.
        unsafe { ffi::Py_IS_TYPE(object, &raw mut PyCoro_Type) != 0 }
    }
}

// ---------------------------------------------------------------------------------------------
// Values

/// A list or tuple that is filled once, from the front.
pub struct Sequence<'py> {
    object: Bound<'py, PyAny>,
    filled: usize,
    capacity: usize,
    is_list: bool,
}

impl<'py> Sequence<'py> {
    pub fn list(py: Python<'py>, capacity: usize) -> PyResult<Self> {
        // SAFETY: attached by `py`; the new reference, or null with an exception, is owned here.
        let object = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyList_New(length(capacity)))? };
        Ok(Sequence { object, filled: 0, capacity, is_list: true })
    }

    pub fn tuple(py: Python<'py>, capacity: usize) -> PyResult<Self> {
        // SAFETY: as for `list`.
        let object = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(length(capacity)))? };
        Ok(Sequence { object, filled: 0, capacity, is_list: false })
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn push(&mut self, item: Bound<'py, impl Sized>) {
        assert!(self.filled < self.capacity, "a sequence was filled beyond its length");
        let index = length(self.filled);
        // SAFETY: the object was made here with room for `capacity` items, nobody else has seen it,
        // `index` is below that and empty, and the reference to `item` is given away.
        unsafe {
            if self.is_list {
                api::list_set_item(self.object.as_ptr(), index, item.into_ptr());
            } else {
                api::tuple_set_item(self.object.as_ptr(), index, item.into_ptr());
            }
        }
        self.filled += 1;
    }

    pub fn finish(self) -> Bound<'py, PyAny> {
        assert_eq!(self.filled, self.capacity, "a sequence must be filled before it is used");
        self.object
    }
}

fn length(value: usize) -> ffi::Py_ssize_t {
    ffi::Py_ssize_t::try_from(value).expect("lengths of terms fit")
}

/// The entries of a dict, in order. Unlike pyo3's iterator it does not panic when the dict changes:
/// who iterates compares the lengths.
pub struct DictEntries<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    position: ffi::Py_ssize_t,
}

impl<'a, 'py> DictEntries<'a, 'py> {
    pub fn new(dict: &'a Bound<'py, PyDict>) -> Self {
        DictEntries { dict, position: 0 }
    }

    pub fn next(&mut self) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let py = self.dict.py();
        let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: PyDict_Next checks the position against the dict as it is now; the borrowed
        // references it gives become owned before anything else can run.
        unsafe {
            if ffi::PyDict_Next(self.dict.as_ptr(), &mut self.position, &mut key, &mut value) == 0 {
                return None;
            }
            Some((Bound::from_borrowed_ptr(py, key), Bound::from_borrowed_ptr(py, value)))
        }
    }
}

/// The items of a `set` or `frozenset` as a list of our own. A class derived from them may iterate over
/// something else, or for ever: a copy knows nothing of that.
pub fn items<'py>(set: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    let py = set.py();
    // SAFETY: attached; a new set is made of what `set` holds, or an exception.
    let copy = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PySet_New(set.as_ptr()))? };
    // SAFETY: as above, a list of what `copy` holds.
    let list = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PySequence_List(copy.as_ptr()))? };
    list.cast_into::<PyList>().map_err(PyErr::from)
}

/// The value of an `int` (or of the `int` within a subclass) that fits 64 bits.
pub fn small_int(value: &Bound<'_, PyAny>) -> Option<i64> {
    let mut overflow: c_int = 0;
    // SAFETY: attached; callers pass only instances of `int`, for which no Python code runs and no
    // exception is raised.
    let small = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &mut overflow) };
    (overflow == 0).then_some(small)
}

/// Decodes UTF-8, strictly.
pub fn utf8<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: attached; the pointer is valid for that many bytes, which are only read.
    let text = unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyUnicode_DecodeUTF8(bytes.as_ptr().cast(), length(bytes.len()), c"strict".as_ptr()),
        )?
    };
    text.cast_into::<PyString>().map_err(PyErr::from)
}

/// The bytes of a `memoryview` or `bytearray`, which keep their place and number as long as this lives.
pub struct View {
    buffer: Box<ffi::Py_buffer>,
}

// SAFETY: the bytes keep their place, and Python's part of it is touched attached, whatever the thread.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// None for other objects, and where the bytes are not one after another.
    pub fn of(value: &Bound<'_, PyAny>) -> Option<Self> {
        if !value.is_exact_instance_of::<PyMemoryView>() && !value.is_exact_instance_of::<PyByteArray>() {
            return None;
        }
        let mut buffer = Box::new(ffi::Py_buffer::new());
        // SAFETY: attached; the buffer is filled, or an exception set.
        let got = unsafe { ffi::PyObject_GetBuffer(value.as_ptr(), &mut *buffer, ffi::PyBUF_CONTIG_RO) };
        if got != 0 {
            // SAFETY: attached.
            unsafe { ffi::PyErr_Clear() };
            return None;
        }
        Some(View { buffer })
    }

    /// What it is a view of, which for a view is that view.
    pub fn object<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: attached; the buffer has a reference to the object, or null.
        unsafe { Bound::from_borrowed_ptr_or_opt(py, self.buffer.obj) }
    }

    pub fn is_read_only(&self) -> bool {
        self.buffer.readonly != 0
    }

    pub fn as_slice(&self) -> &[u8] {
        if self.buffer.len == 0 {
            return &[];
        }
        // SAFETY: the buffer is contiguous and has this many bytes until it is released. Other threads
        // may write them where the object lets them, as they may with any buffer of Python's.
        unsafe { std::slice::from_raw_parts(self.buffer.buf.cast(), self.buffer.len as usize) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: released once, attached.
        Python::attach(|_| unsafe { ffi::PyBuffer_Release(&mut *self.buffer) });
    }
}

/// So many arguments are passed without asking for memory.
pub const FEW: usize = 6;

/// Calls with positional arguments, followed by the values of the keyword arguments `names`.
pub fn vectorcall<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &[Bound<'py, PyAny>],
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, PyAny>> {
    let named = names.map_or(0, |names| names.len());
    let positional = arguments.len().checked_sub(named).expect("a value for each name");
    let names = names.map_or(ptr::null_mut(), |names| names.as_ptr());
    // `Bound` is a pointer with a lifetime, but does not promise to be one. The place in front is for a
    // method to put its object.
    let mut few = [ptr::null_mut(); 1 + FEW];
    let mut many: Vec<_>;
    let places = if arguments.len() <= FEW {
        &mut few[..]
    } else {
        many = vec![ptr::null_mut(); 1 + arguments.len()];
        &mut many[..]
    };
    places[1..].iter_mut().zip(arguments).for_each(|(place, argument)| *place = argument.as_ptr());
    // SAFETY: attached; the arguments live in `arguments`, whose last `named` belong to `names`, and
    // there is a place in front of them, as the flag says.
    unsafe {
        let first = places.as_mut_ptr().add(1);
        let count = positional | api::PY_VECTORCALL_ARGUMENTS_OFFSET;
        let result = api::vectorcall(callable.as_ptr(), first.cast_const(), count, names);
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// `sys.modules[name]`, where it is there already: perhaps not fully imported.
pub fn imported<'py>(name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    // SAFETY: attached; what comes back is borrowed from a dict, or null with an exception only if
    // hashing fails, and nothing runs before it is owned.
    unsafe {
        let modules = ffi::PyImport_GetModuleDict();
        if ffi::PyDict_CheckExact(modules) == 0 {
            return None;
        }
        let module = ffi::PyDict_GetItemWithError(modules, name.as_ptr());
        if module.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        Some(Bound::from_borrowed_ptr(name.py(), module))
    }
}

/// Whether this is a module as the import system makes them, and nothing derived from that.
pub fn is_plain_module(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: only compares the object's type.
    unsafe { ffi::PyModule_CheckExact(object.as_ptr()) != 0 }
}

/// Whether the module is the one that is imported under this name.
pub fn is_imported_as(name: &Bound<'_, PyString>, module: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached; what comes back is borrowed, and only compared.
    unsafe {
        let modules = ffi::PyImport_GetModuleDict();
        if ffi::PyDict_CheckExact(modules) == 0 {
            return false;
        }
        let found = ffi::PyDict_GetItemWithError(modules, name.as_ptr());
        if found.is_null() {
            ffi::PyErr_Clear();
        }
        found == module.as_ptr()
    }
}

/// What a plain module has under a name in its namespace.
pub fn global<'py>(module: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    // SAFETY: attached; a module's dict lives as long as the module, and what comes back is borrowed
    // from it, or null with an exception only if comparing fails; nothing runs before it is owned.
    unsafe {
        let found = ffi::PyDict_GetItemWithError(ffi::PyModule_GetDict(module.as_ptr()), name.as_ptr());
        if found.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        Some(Bound::from_borrowed_ptr(name.py(), found))
    }
}

/// True for the objects that `async def` functions return.
pub fn is_coroutine(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: only compares the object's type.
    unsafe { api::is_coroutine(value.as_ptr()) }
}

/// Keeps the cyclic collector from walking through containers that are only just being made.
pub struct CollectorPause(bool);

impl CollectorPause {
    pub fn new(_: Python<'_>) -> Self {
        // SAFETY: attached; sets a flag of the interpreter.
        CollectorPause(unsafe { ffi::PyGC_Disable() } != 0)
    }
}

impl Drop for CollectorPause {
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: made with the thread attached, and conversions do not detach it.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}

/// State of an interpreter that only attached threads touch, so that the GIL is its lock. A thread is
/// only ever attached to one interpreter.
#[derive(Default)]
pub struct Attached<T> {
    value: UnsafeCell<T>,
    is_borrowed: Cell<bool>,
}

// SAFETY: `with` asks for the GIL, which one thread has at a time.
unsafe impl<T: Send> Sync for Attached<T> {}

impl<T> Attached<T> {
    /// `body` must not run Python code, which may let another thread have the GIL.
    pub fn with<R>(&self, _: Python<'_>, body: impl FnOnce(&mut T) -> R) -> R {
        assert!(!self.is_borrowed.replace(true), "Python ran where it must not");
        // SAFETY: the GIL keeps other threads out, the flag whoever runs in `body` or, had `body` let
        // the GIL go, on another thread.
        let result = body(unsafe { &mut *self.value.get() });
        self.is_borrowed.set(false);
        result
    }
}

// ---------------------------------------------------------------------------------------------
// Threads

/// The name under which Python can reach the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadId(c_long);

impl ThreadId {
    pub fn current(_: Python<'_>) -> Self {
        // SAFETY: reads the identity of the calling thread.
        ThreadId(unsafe { ffi::PyThread_get_thread_ident() } as c_long)
    }

    /// The thread of that number; that of none is nobody.
    pub fn numbered(number: c_long) -> Self {
        ThreadId(number)
    }

    /// The number that `threading.get_ident` gives.
    pub fn number(self) -> c_long {
        self.0
    }

    /// Has `exception` raised in that thread the next time it runs Python code.
    pub fn raise(self, exception: &Bound<'_, PyAny>) {
        // SAFETY: attached; the call takes a reference of its own, and an unknown thread is no error.
        unsafe { ffi::PyThreadState_SetAsyncExc(self.0 as _, exception.as_ptr()) };
    }

    /// Takes back what `raise` left behind and was not raised yet.
    pub fn take_back(self, _: Python<'_>) {
        // SAFETY: attached; null clears the pending exception.
        unsafe { ffi::PyThreadState_SetAsyncExc(self.0 as _, ptr::null_mut()) };
    }
}

/// The thread that boots Python, as the operating system names it.
#[derive(Clone, Copy)]
pub struct SignalTarget(libc::pthread_t);

impl SignalTarget {
    /// The calling thread, which from now on takes the signal.
    pub fn current() -> Self {
        // SAFETY: a signal set on the stack is initialised before it is used.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, interrupt_signal());
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());
            SignalTarget(libc::pthread_self())
        }
    }

    pub fn interrupt(self) {
        // SAFETY: the booting thread lives as long as the process.
        unsafe { libc::pthread_kill(self.0, interrupt_signal()) };
    }
}

/// The one real-time signal that is ours. The first few belong to the C library and to tools.
pub fn interrupt_signal() -> c_int {
    libc::SIGRTMIN() + 7
}

/// A child of `fork` inherits the VM's handlers, which would write into the VM's own pipes: killing
/// the child with SIGTERM would shut the node down.
pub fn reset_signals_in_forked_children() {
    extern "C" fn reset() {
        crate::fork::become_child();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGCHLD] {
            // SAFETY: signal() is async-signal-safe, and the default action is always valid.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: the handler calls nothing but async-signal-safe functions.
    unsafe { libc::pthread_atfork(None, None, Some(reset)) };
}

#[cfg(not(feature = "limited"))]
/// What the calling thread has had of the processor.
#[derive(Clone, Copy)]
pub struct Usage {
    pub time: Duration,
    /// How often it waited for something else than a processor.
    pub waits: c_long,
}

#[cfg(not(feature = "limited"))]
impl Usage {
    #[cfg(target_os = "linux")]
    pub fn now() -> Option<Self> {
        // SAFETY: a rusage is plain data, for which zeroes are valid, and it is only written to.
        let usage = unsafe {
            let mut usage = std::mem::zeroed::<libc::rusage>();
            (libc::getrusage(libc::RUSAGE_THREAD, &mut usage) == 0).then_some(usage)?
        };
        let duration = |time: libc::timeval| {
            Duration::new(time.tv_sec.unsigned_abs(), 0) + Duration::from_micros(time.tv_usec.unsigned_abs())
        };
        Some(Usage { time: duration(usage.ru_utime) + duration(usage.ru_stime), waits: usage.ru_nvcsw })
    }

    #[cfg(not(target_os = "linux"))]
    pub fn now() -> Option<Self> {
        None
    }
}

#[cfg(not(feature = "limited"))]
/// The thread states of an interpreter.
pub struct ThreadStates(*mut ffi::PyInterpreterState);

#[cfg(not(feature = "limited"))]
// SAFETY: the interpreter outlives all that uses this, and its fields are read as `count` and
// `newest` say.
unsafe impl Send for ThreadStates {}
#[cfg(not(feature = "limited"))]
// SAFETY: as above.
unsafe impl Sync for ThreadStates {}

#[cfg(not(feature = "limited"))]
impl ThreadStates {
    pub fn of(_: Python<'_>) -> Self {
        // SAFETY: attached.
        ThreadStates(unsafe { ffi::PyInterpreterState_Get() })
    }

    /// How many there are. A thread state goes away only while its thread holds the GIL, which the
    /// caller does.
    pub fn count(&self, _: Python<'_>) -> usize {
        let some = |state: *mut ffi::PyThreadState| (!state.is_null()).then_some(state);
        // SAFETY: as above: what the list holds stays, and what is added is added in front.
        let first = some(unsafe { ffi::PyInterpreterState_ThreadHead(self.0) });
        // SAFETY: as above.
        std::iter::successors(first, |state| some(unsafe { ffi::PyThreadState_Next(*state) })).count()
    }

    /// What names the thread state that was made last. Needs no GIL: a word is read, and nothing that
    /// it points to.
    pub fn newest(&self) -> usize {
        // SAFETY: reads one field of an interpreter that is alive.
        unsafe { ffi::PyInterpreterState_ThreadHead(self.0) as usize }
    }
}

#[cfg(not(feature = "limited"))]
/// Lets the calling thread keep its thread state when it detaches, for as long as it lives.
pub fn keep_thread_state(_: Python<'_>) {
    // SAFETY: one count more of what this thread holds already; it is never released.
    let _ = unsafe { ffi::PyGILState_Ensure() };
}

/// Marks a value as bound to the thread that made it.
pub type LocalKey = PhantomData<*const ()>;

// ---------------------------------------------------------------------------------------------
// Stacks

#[cfg(not(feature = "limited"))]
/// As large as those of the threads that run Python.
const STACK: usize = 64 * 1024 * 1024;

#[cfg(not(feature = "limited"))]
/// A page that is never written or read, and that an overflow runs into.
const GUARD: usize = 64 * 1024;

#[cfg(not(feature = "limited"))]
thread_local! {
    /// The stack that the calling thread has for Python; null where there was no memory for it.
    static LARGE_STACK: Cell<Option<*mut u8>> = const { Cell::new(None) };
}

#[cfg(not(feature = "limited"))]
/// Runs `body` on a stack that is large enough for Python; None where there is none. Each thread
/// makes one, of which only the pages that are touched take memory, and keeps it.
pub fn on_large_stack<R>(body: impl FnOnce() -> R) -> Option<R> {
    let base = LARGE_STACK.get().unwrap_or_else(|| {
        let base = new_stack();
        LARGE_STACK.set(Some(base));
        base
    });
    if base.is_null() {
        return None;
    }
    let body = AssertUnwindSafe(body);
    // SAFETY: the memory is a stack of this size with a guard below it, which nobody else uses: a
    // call within a call would find its thread inside the gate. No panic leaves the closure.
    let result = unsafe { psm::on_stack(base, STACK, || catch_unwind(body)) };
    Some(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

#[cfg(not(feature = "limited"))]
fn new_stack() -> *mut u8 {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK,
    );
    // SAFETY: asks for new memory and takes the lowest pages' permissions away.
    unsafe {
        let memory = libc::mmap(ptr::null_mut(), STACK + GUARD, protection, flags, -1, 0);
        if memory == libc::MAP_FAILED || libc::mprotect(memory, GUARD, libc::PROT_NONE) != 0 {
            return ptr::null_mut();
        }
        memory.cast::<u8>().add(GUARD)
    }
}

#[cfg(not(feature = "limited"))]
/// From 3.14 on, Python looks at the stack pointer and has to be told of other stacks; earlier ones
/// count.
const LOOKS_AT_STACKS: (u8, u8) = (3, 14);

#[cfg(not(feature = "limited"))]
type SetStackProtection = unsafe extern "C" fn(*mut ffi::PyThreadState, *mut c_void, usize) -> c_int;

#[cfg(not(feature = "limited"))]
fn set_stack_protection() -> Option<SetStackProtection> {
    // SAFETY: libpython is loaded globally; a symbol of this name has this type.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"PyUnstable_ThreadState_SetStackProtection".as_ptr());
        (!symbol.is_null()).then(|| std::mem::transmute::<*mut c_void, SetStackProtection>(symbol))
    }
}

#[cfg(not(feature = "limited"))]
/// Whether this Python can run on stacks of ours.
pub fn can_switch_stacks(py: Python<'_>) -> bool {
    let version = py.version_info();
    (version.major, version.minor) < LOOKS_AT_STACKS || set_stack_protection().is_some()
}

#[cfg(not(feature = "limited"))]
/// Tells Python of the large stack that the calling thread is on.
pub fn announce_large_stack(py: Python<'_>) -> PyResult<()> {
    let (Some(base), Some(set)) = (LARGE_STACK.get(), set_stack_protection()) else { return Ok(()) };
    // SAFETY: attached; the stack is as large as it says.
    match unsafe { set(ffi::PyThreadState_Get(), base.cast(), STACK) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(py)),
    }
}

// ---------------------------------------------------------------------------------------------
// Booting

#[cfg(not(feature = "limited"))]
/// Initialises Python on the calling thread, which becomes its main thread, and leaves it detached.
pub fn initialize(executable: &CStr) -> Result<(), String> {
    // SAFETY: called once, before anything else of Python is used; both configurations are
    // initialised by their own functions before their fields are set, and cleared at the end.
    unsafe {
        if ffi::PyImport_AppendInittab(NATIVE_MODULE.as_ptr(), Some(native_module_init)) != 0 {
            return Err("no memory for the native module".into());
        }
        let mut preconfig = std::mem::zeroed();
        ffi::PyPreConfig_InitPythonConfig(&mut preconfig);
        preconfig.configure_locale = 0;
        preconfig.coerce_c_locale = 0;
        preconfig.parse_argv = 0;
        preconfig.utf8_mode = 1;
        check(ffi::Py_PreInitialize(&preconfig))?;

        let mut config = std::mem::zeroed();
        ffi::PyConfig_InitPythonConfig(&mut config);
        config.install_signal_handlers = 0;
        config.parse_argv = 0;
        config.configure_c_stdio = 0;
        // A venv is recognised by where its executable is.
        let field = &raw mut config.program_name;
        let status = ffi::PyConfig_SetBytesString(&mut config, field, executable.as_ptr());
        let result = check(status).and_then(|()| check(ffi::Py_InitializeFromConfig(&config)));
        ffi::PyConfig_Clear(&mut config);
        result?;
        ffi::PyEval_SaveThread();
        Ok(())
    }
}

#[cfg(not(feature = "limited"))]
fn check(status: ffi::PyStatus) -> Result<(), String> {
    // SAFETY: a PyStatus is plain data whose message, if any, is a static string.
    unsafe {
        if ffi::PyStatus_Exception(status) == 0 {
            return Ok(());
        }
        if status.err_msg.is_null() {
            return Err(format!("exit code {}", status.exitcode));
        }
        Err(CStr::from_ptr(status.err_msg).to_string_lossy().into_owned())
    }
}

// ---------------------------------------------------------------------------------------------
// The native half of the `erlang` package

const NATIVE_MODULE: &CStr = c"_erlang";

/// A multi-phase module in the style of C: pyo3's own modules keep state that sub-interpreters
/// would share.
pub extern "C" fn native_module_init() -> *mut ffi::PyObject {
    struct Definition(ffi::PyModuleDef);
    // SAFETY: the definition and what it points to are never written by us; CPython writes its own
    // fields in it, with the GIL of the importing interpreter held.
    unsafe impl Sync for Definition {}
    static METHODS: Methods = Methods([
        method(c"send", send),
        method(c"ask", ask),
        method(c"asker", asker),
        method(c"may_ask", may_ask),
        method(c"runs", runs),
        method(c"interrupted", interrupted),
        method(c"finish", finish),
        method(c"pending_output", pending_output),
        method(c"loop_waits", loop_waits),
        method(c"loop_returns", loop_returns),
        method(c"base", base),
        method(c"may_stall", may_stall),
        method(c"interrupt_thread", interrupt_thread),
        method(c"freeze", freeze),
        method(c"from_dlpack", from_dlpack),
        method(c"to_dlpack", to_dlpack),
        // SAFETY: an entry of zeroes ends the table.
        unsafe { std::mem::zeroed() },
    ]);
    struct Methods([ffi::PyMethodDef; 17]);
    // SAFETY: read only.
    unsafe impl Sync for Methods {}
    // SAFETY: an entry of zeroes ends the table; there is nothing to run when the module is made.
    static mut SLOTS: [ffi::PyModuleDef_Slot; 1] = [unsafe { std::mem::zeroed() }];
    static mut DEFINITION: Definition = Definition(ffi::PyModuleDef {
        m_base: ffi::PyModuleDef_HEAD_INIT,
        m_name: NATIVE_MODULE.as_ptr(),
        m_doc: ptr::null(),
        m_size: size_of::<*const Interpreter>() as ffi::Py_ssize_t,
        m_methods: METHODS.0.as_ptr().cast_mut(),
        m_slots: &raw mut SLOTS as *mut ffi::PyModuleDef_Slot,
        m_traverse: None,
        m_clear: None,
        m_free: None,
    });
    // SAFETY: the import machinery calls this with the GIL held, and the definition is static.
    unsafe { ffi::PyModuleDef_Init(&raw mut DEFINITION.0) }
}

type Fast =
    unsafe extern "C" fn(*mut ffi::PyObject, *mut *mut ffi::PyObject, ffi::Py_ssize_t) -> *mut ffi::PyObject;

const fn method(name: &'static CStr, function: Fast) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: function },
        ml_flags: ffi::METH_FASTCALL,
        ml_doc: ptr::null(),
    }
}

/// Lets the native module of this interpreter find `interpreter`.
pub fn bind_native_module(py: Python<'_>, interpreter: &'static Interpreter) -> PyResult<()> {
    let module = py.import("_erlang")?;
    let state = native_state(&module).ok_or_else(|| PySystemError::new_err("_erlang has no state"))?;
    // SAFETY: the state is memory of the module's, of this size and zeroed, and the GIL is held.
    unsafe { state.write(interpreter) };
    Ok(())
}

fn native_state(module: &Bound<'_, PyModule>) -> Option<*mut *const Interpreter> {
    // SAFETY: the module is `_erlang`, whose state has this type.
    let state = unsafe { ffi::PyModule_GetState(module.as_ptr()) };
    (!state.is_null()).then_some(state.cast())
}

type InChild<'py> = fn(Python<'py>) -> PyResult<Bound<'py, PyAny>>;

/// Runs the body of a native function: no panic leaves it, and an error becomes the exception. Where this is a
/// child that Python code forked, `in_child` runs instead of a body that takes a lock.
fn native<'py>(
    py: Python<'py>,
    module: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    body: impl FnOnce(&'static Interpreter, &[Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyAny>>,
    in_child: Option<InChild<'py>>,
) -> *mut ffi::PyObject {
    let run = AssertUnwindSafe(|| {
        if let Some(in_child) = in_child.filter(|_| crate::fork::is_child()) {
            return in_child(py);
        }
        // SAFETY: CPython passes the module and `count` valid arguments.
        let (module, arguments) = unsafe {
            let module = Bound::from_borrowed_ptr(py, module).cast_into_unchecked::<PyModule>();
            let count = usize::try_from(count).unwrap_or(0);
            let pointers = if count == 0 { &[][..] } else { std::slice::from_raw_parts(arguments, count) };
            (module, pointers.iter().map(|item| Bound::from_borrowed_ptr(py, *item)).collect::<Vec<_>>())
        };
        let state = native_state(&module).ok_or_else(|| PyRuntimeError::new_err("_erlang is not ready"))?;
        // SAFETY: the state holds null or an interpreter that lives for ever.
        let interpreter = unsafe { (*state).as_ref() };
        body(interpreter.ok_or_else(|| PyRuntimeError::new_err("_erlang is not ready"))?, &arguments)
    });
    let result = catch_unwind(run)
        .unwrap_or_else(|_| Err(PySystemError::new_err("a panic in _erlang; please report it")));
    match result {
        Ok(value) => value.into_ptr(),
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    }
}

macro_rules! native_function {
    ($name:ident, $body:path) => {
        native_function!($name, $body, in_child: Some(crate::natives::in_child::nothing));
    };
    ($name:ident, $body:path, in_child: $in_child:expr) => {
        unsafe extern "C" fn $name(
            module: *mut ffi::PyObject,
            arguments: *mut *mut ffi::PyObject,
            count: ffi::Py_ssize_t,
        ) -> *mut ffi::PyObject {
            Python::attach(|py| {
                let body = |interpreter, arguments: &[_]| $body(interpreter, py, arguments);
                native(py, module, arguments, count, body, $in_child)
            })
        }
    };
}

native_function!(send, crate::natives::send, in_child: Some(crate::natives::in_child::no));
native_function!(ask, crate::natives::ask, in_child: Some(crate::natives::in_child::refused));
native_function!(asker, crate::natives::asker);
native_function!(may_ask, crate::natives::may_ask);
native_function!(runs, crate::natives::runs);
native_function!(interrupted, crate::natives::interrupted);
native_function!(finish, crate::natives::finish);
native_function!(pending_output, crate::natives::pending_output);
native_function!(loop_waits, crate::natives::loop_waits);
native_function!(loop_returns, crate::natives::loop_returns);
native_function!(base, crate::natives::base);
native_function!(may_stall, crate::natives::may_stall);
native_function!(interrupt_thread, crate::natives::interrupt_thread);
native_function!(freeze, crate::natives::freeze);
native_function!(from_dlpack, crate::dlpack::take, in_child: None);
native_function!(to_dlpack, crate::dlpack::lend, in_child: None);

// ---------------------------------------------------------------------------------------------
// Tickets that Python keeps for us

const FUNCTION: &CStr = c"py.function";

/// Wraps a function of the BEAM's, which only we unwrap.
pub fn function_capsule<'py>(py: Python<'py>, etf: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    capsule(py, FUNCTION, etf.to_vec())
}

pub fn capsule_function(capsule: &Bound<'_, PyAny>) -> Option<Vec<u8>> {
    // SAFETY: PyCapsule_GetPointer checks type and name; a capsule of that name holds a box with bytes.
    unsafe {
        let pointer = ffi::PyCapsule_GetPointer(capsule.as_ptr(), FUNCTION.as_ptr());
        if pointer.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        Some((*pointer.cast::<Vec<u8>>()).clone())
    }
}

/// A capsule that owns a value. Its name tells what type that is.
fn capsule<'py, T>(py: Python<'py>, name: &'static CStr, value: T) -> PyResult<Bound<'py, PyAny>> {
    unsafe extern "C" fn release<T>(capsule: *mut ffi::PyObject) {
        if crate::fork::is_child() {
            return;
        }
        // SAFETY: only capsules of the function around this have this destructor, and it runs once; the
        // pointer is asked for by the name that the capsule has.
        unsafe {
            let pointer = ffi::PyCapsule_GetPointer(capsule, ffi::PyCapsule_GetName(capsule));
            if !pointer.is_null() {
                drop(Box::from_raw(pointer.cast::<T>()));
            }
        }
    }
    let pointer = Box::into_raw(Box::new(value)).cast::<c_void>();
    // SAFETY: the pointer is not null; the capsule owns the box, which `release` takes.
    unsafe {
        let capsule = ffi::PyCapsule_New(pointer, name.as_ptr(), Some(release::<T>));
        if capsule.is_null() {
            drop(Box::from_raw(pointer.cast::<T>()));
        }
        Bound::from_owned_ptr_or_err(py, capsule)
    }
}

const TICKET: &CStr = c"py.ticket";

/// Wraps a ticket for the event loop to hold. If it is dropped unfinished, so is the ticket.
pub fn ticket_capsule<'py>(py: Python<'py>, ticket: Arc<Ticket>) -> PyResult<Bound<'py, PyAny>> {
    capsule(py, TICKET, ticket)
}

pub fn capsule_ticket(capsule: &Bound<'_, PyAny>) -> PyResult<Arc<Ticket>> {
    // SAFETY: PyCapsule_GetPointer checks type and name; a capsule of that name holds a box with a
    // ticket.
    unsafe {
        let pointer = ffi::PyCapsule_GetPointer(capsule.as_ptr(), TICKET.as_ptr());
        if pointer.is_null() {
            return Err(PyErr::fetch(capsule.py()));
        }
        Ok(Arc::clone(&*pointer.cast::<Arc<Ticket>>()))
    }
}

const ASKER: &CStr = c"py.asker";

/// Wraps what tells a request, for its threads and tasks to hold: the request does not live longer for it.
pub fn asker_capsule(py: Python<'_>, asker: Asker) -> PyResult<Bound<'_, PyAny>> {
    capsule(py, ASKER, asker)
}

/// None for anything else.
pub fn capsule_asker(capsule: &Bound<'_, PyAny>) -> Option<Asker> {
    // SAFETY: PyCapsule_IsValid checks type and name; a capsule of that name holds a box with an asker,
    // which is borrowed while the capsule is.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule.as_ptr(), ASKER.as_ptr()) == 0 {
            return None;
        }
        let pointer = ffi::PyCapsule_GetPointer(capsule.as_ptr(), ASKER.as_ptr());
        Some((*pointer.cast::<Asker>()).clone())
    }
}

#[cfg(not(feature = "limited"))]
pub fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} contains a NUL byte"))
}
