#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::panic::catch_unwind;
use std::sync::atomic::AtomicU8;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use rustler::codegen_runtime::{NifReturnable, NifReturned, handle_nif_result};
use rustler::sys::{
    ErlNifEnv, ErlNifPid, ErlNifTerm, enif_alloc_binary, enif_alloc_env, enif_free_env, enif_make_copy,
    enif_make_resource_binary, enif_send, enif_whereis_pid,
};
use rustler::{Atom, Env, LocalPid, NifResult, OwnedBinary, Resource, ResourceArc, SchedulerFlags, Term};

type GetVersion = unsafe extern "C" fn() -> *const c_char;

/// Opens the library for good, with its symbols visible to every library loaded after it.
pub fn open_global(path: &str) -> Result<String, String> {
    // SAFETY: the initialisers of libpython only set up its own data; that the file is a libpython
    // is what the caller found out by asking its interpreter.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
        .map_err(|error| format!("{path} cannot be opened: {error}"))?;
    let version = version(&library).map_err(|error| format!("{path} is no libpython: {error}"));
    std::mem::forget(library);
    version
}

fn version(library: &Library) -> Result<String, libloading::Error> {
    // SAFETY: the symbol has had this type in every CPython 3.
    let get_version = unsafe { library.get::<GetVersion>("Py_GetVersion")? };
    // SAFETY: Py_GetVersion may be called before Python is initialised and returns a static string.
    let text = unsafe { CStr::from_ptr(get_version()) };
    Ok(text.to_string_lossy().into_owned())
}

/// The process that is registered under a name, for threads that are not the VM's.
pub fn registered(name: Atom) -> Option<LocalPid> {
    let mut pid = MaybeUninit::uninit();
    // SAFETY: a thread of ours has no environment of its own, and on success the pid is written.
    unsafe {
        let found = enif_whereis_pid(std::ptr::null_mut(), name.as_c_arg(), pid.as_mut_ptr());
        (found != 0).then(|| LocalPid::from_c_arg(pid.assume_init()))
    }
}

/// A NIF that may take long, by what it is asked to do.
pub trait LongNif {
    const NAME: &'static CStr;

    fn run<'a>(env: Env<'a>, args: &[Term<'a>]) -> NifResult<Term<'a>>;
}

/// The answer of a NIF, or what makes it go on on a dirty scheduler.
pub enum Answer<'a> {
    Now(Term<'a>),
    Dirty(NifReturned),
}

impl<'a> Answer<'a> {
    pub fn dirty<T: LongNif>(args: &[Term<'a>]) -> Self {
        Answer::Dirty(NifReturned::Reschedule {
            fun_name: T::NAME.into(),
            flags: SchedulerFlags::DirtyCpu,
            fun: run_long::<T>,
            args: args.iter().map(Term::as_c_arg).collect(),
        })
    }
}

// SAFETY: the term is of the environment of the call, and so are the arguments of the next one.
unsafe impl NifReturnable for Answer<'_> {
    unsafe fn into_returned(self, _: Env) -> NifReturned {
        match self {
            Answer::Now(term) => NifReturned::Term(term.as_c_arg()),
            Answer::Dirty(returned) => returned,
        }
    }
}

/// What the VM calls on the dirty scheduler: as rustler does for every NIF.
unsafe extern "C" fn run_long<T: LongNif>(
    env: *mut ErlNifEnv,
    count: c_int,
    args: *const ErlNifTerm,
) -> ErlNifTerm {
    let lifetime = ();
    // SAFETY: the environment of this call lives until it returns, and so do its arguments, of which
    // there are as many as `Answer::dirty` gave. It returns nothing but a term of it.
    unsafe {
        let env = Env::new(&lifetime, env);
        let args = std::slice::from_raw_parts(args, usize::try_from(count).unwrap_or(0));
        let args: Vec<Term> = args.iter().map(|arg| Term::new(env, *arg)).collect();
        handle_nif_result(catch_unwind(|| T::run(env, &args)), env).apply(env)
    }
}

/// A binary on memory that a resource owns and that the binary keeps.
pub fn binary_on<'a, T: Resource>(
    env: Env<'a>,
    resource: ResourceArc<T>,
    memory: impl FnOnce(&T) -> Option<&[AtomicU8]>,
) -> Option<Term<'a>> {
    let object = resource.as_c_arg();
    let memory = memory(&resource)?;
    // SAFETY: the memory lives as long as the resource, which outlives the binary. The VM reads it, and
    // through no reference of Rust's that says that it does not change.
    Some(unsafe {
        let binary = enif_make_resource_binary(env.as_c_arg(), object, memory.as_ptr().cast(), memory.len());
        Term::new(env, binary)
    })
}

/// A message that waits until it is time to send it.
pub struct Parcel {
    env: *mut ErlNifEnv,
    to: ErlNifPid,
    message: ErlNifTerm,
}

// SAFETY: the environment belongs to no process and to this value alone, and nothing is built there
// after `new`.
unsafe impl Send for Parcel {}
// SAFETY: as above.
unsafe impl Sync for Parcel {}

impl Parcel {
    pub fn new(to: &LocalPid, message: Term<'_>) -> Self {
        // SAFETY: the message is copied whole into an environment that is ours.
        unsafe {
            let env = enif_alloc_env();
            Parcel { env, to: *to.as_c_arg(), message: enif_make_copy(env, message.as_c_arg()) }
        }
    }

    /// `caller` is the environment of the callback that sends it.
    pub fn send(self, caller: Env<'_>) {
        // SAFETY: the message is a term of this environment, which the call empties, and nobody sends it again.
        unsafe { enif_send(caller.as_c_arg(), &self.to, self.env, self.message) };
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody has terms of it.
        unsafe { enif_free_env(self.env) };
    }
}

/// Memory of the VM's for a binary, if there is so much: what rustler has for this ends the VM if not.
pub fn allocate(len: usize) -> Option<OwnedBinary> {
    let mut binary = MaybeUninit::uninit();
    // SAFETY: on success the binary is set, and nobody else's.
    unsafe {
        (enif_alloc_binary(len, binary.as_mut_ptr()) != 0)
            .then(|| OwnedBinary::from_raw(binary.assume_init()))
    }
}

/// Borrows a descriptor by its number.
pub fn with_descriptor<R>(number: RawFd, run: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
    // SAFETY: -1 is excluded. That the descriptor stays open is up to the caller in Elixir, who has the
    // socket open; else a call of the system fails, or meets another file, which harms no memory.
    (number >= 0).then(|| run(unsafe { BorrowedFd::borrow_raw(number) }))
}
