//! One Python interpreter: the objects this library keeps in it, and what it does with them.
//!
//! Everything of Python that outlives a call is a field here, never a static: several interpreters
//! can live in one process. An interpreter is never dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyAnyMethods, PyBytes, PyDict, PyInt, PyModule, PyString, PyTuple, PyType};

use crate::boot::Facts;
use crate::by_word::ByWord;
use crate::convert::Opaque;
use crate::errand::Errands;
use crate::event_loop::EventLoop;
use crate::ffi::{self, Attached};
use crate::gate::Gate;
#[cfg(not(feature = "limited"))]
use crate::inline::{Visit, Visitors};
use crate::memory::MemoryType;
use crate::question::Questions;
use crate::release::Releases;
use crate::request::{Source, no_such_module};
use crate::routes::Routes;
use crate::scheduler::Scheduler;
use crate::ticket::{Phase, Ticket};
use crate::wire::{Fault, Host, Kind};

/// Atoms are few and never freed, so are their Python twins; the bound is for those who make many.
const MAX_CACHED_NAMES: usize = 16_384;

pub struct Interpreter {
    pub(crate) hooks: Hooks,
    pub(crate) memory: MemoryType,
    atoms: Attached<ByWord<Py<PyAny>>>,
    names: Attached<ByWord<Py<PyString>>>,
    /// Modules that were found fully imported once, by address.
    modules: Attached<ByWord<Py<PyAny>>>,
    bases: Attached<HashMap<usize, Py<PyModule>>>,
    pub(crate) routes: Routes,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) errands: Errands,
    pub(crate) releases: Releases,
    pub questions: Questions,
    pub(crate) gate: Gate,
    #[cfg(not(feature = "limited"))]
    pub(crate) visitors: Visitors,
    pub(crate) host: Box<dyn Host>,
    pub(crate) output_pending: AtomicBool,
    pub(crate) next_task: AtomicU64,
    /// Iterators that run with items behind them which nobody was sent yet.
    pub(crate) stalls: AtomicUsize,
    pub(crate) event_loop: Mutex<EventLoop>,
    set_version: bool,
    main_thread: ffi::SignalTarget,
}

/// What is looked up once in the `erlang` package.
pub(crate) struct Hooks {
    pub(crate) atom: Py<PyType>,
    pub(crate) pid: Py<PyType>,
    pub(crate) reference: Py<PyType>,
    pub(crate) port: Py<PyType>,
    pub(crate) function: Py<PyType>,
    pub(crate) structure: Py<PyType>,
    pub(crate) cancelled: Py<PyAny>,
    pub(crate) from_struct: Py<PyAny>,
    pub(crate) describe: Py<PyAny>,
    pub(crate) encoders: Py<PyDict>,
    pub(crate) has_encoder: Py<PyAny>,
    pub(crate) object_reference: Py<PyType>,
    pub(crate) refer: Py<PyAny>,
    pub(crate) same: Py<PyAny>,
    pub(crate) not_here: Py<PyType>,
    pub(crate) settle: Py<PyAny>,
    pub(crate) numbered: Py<PyAny>,
    pub(crate) drop: Py<PyAny>,
    pub(crate) describe_error: Py<PyAny>,
    pub(crate) new_base: Py<PyAny>,
    pub(crate) forget_base: Py<PyAny>,
    pub(crate) init: Py<PyAny>,
    pub(crate) run_code: Py<PyAny>,
    pub(crate) within: Py<PyAny>,
    pub(crate) await_within: Py<PyAny>,
    pub(crate) reload: Py<PyAny>,
    pub(crate) leader: Py<PyAny>,
    pub(crate) flush_output: Py<PyAny>,
    pub(crate) loop_run: Py<PyAny>,
    pub(crate) loop_submit: Py<PyAny>,
    pub(crate) loop_cancel: Py<PyAny>,
    pub(crate) loop_runs_one_of: Py<PyAny>,
    pub(crate) loop_abandon: Py<PyAny>,
    pub(crate) is_importing: Py<PyAny>,
    pub(crate) flush_streams: Py<PyAny>,
    pub(crate) stacks: Py<PyAny>,
    pub(crate) int_from_bytes: Py<PyAny>,
    pub(crate) little: Py<PyString>,
}

impl Hooks {
    fn new(py: Python<'_>) -> PyResult<Self> {
        let types = py.import("erlang._types")?;
        let code = py.import("erlang._code")?;
        let context = py.import("erlang._context")?;
        let output = py.import("erlang._output")?;
        let event_loop = py.import("erlang._loop")?;
        let objects = py.import("erlang._objects")?;
        let exceptions = py.import("erlang._exceptions")?;
        let class =
            |name: &str| -> PyResult<Py<PyType>> { Ok(types.getattr(name)?.cast_into::<PyType>()?.unbind()) };
        Ok(Hooks {
            atom: class("Atom")?,
            pid: class("Pid")?,
            reference: class("Ref")?,
            port: class("Port")?,
            function: py.import("erlang._callbacks")?.getattr("Function")?.cast_into::<PyType>()?.unbind(),
            structure: class("Struct")?,
            cancelled: py.import("erlang")?.getattr("Cancelled")?.unbind(),
            from_struct: types.getattr("from_struct")?.unbind(),
            describe: types.getattr("describe")?.unbind(),
            encoders: types.getattr("encoders")?.cast_into::<PyDict>()?.unbind(),
            has_encoder: types.getattr("has_encoder")?.unbind(),
            object_reference: objects.getattr("Reference")?.cast_into::<PyType>()?.unbind(),
            refer: objects.getattr("refer")?.unbind(),
            same: objects.getattr("same")?.unbind(),
            numbered: objects.getattr("numbered")?.unbind(),
            settle: objects.getattr("settle")?.unbind(),
            drop: objects.getattr("drop")?.unbind(),
            not_here: exceptions.getattr("NotHereError")?.cast_into::<PyType>()?.unbind(),
            describe_error: py.import("erlang._errors")?.getattr("describe")?.unbind(),
            new_base: code.getattr("new_base")?.unbind(),
            forget_base: code.getattr("forget_base")?.unbind(),
            init: code.getattr("init")?.unbind(),
            run_code: code.getattr("run")?.unbind(),
            within: context.getattr("within")?.unbind(),
            await_within: context.getattr("await_within")?.unbind(),
            reload: code.getattr("reload")?.unbind(),
            leader: output.getattr("leader")?.unbind(),
            flush_output: output.getattr("flush")?.unbind(),
            loop_run: event_loop.getattr("run")?.unbind(),
            loop_submit: event_loop.getattr("submit")?.unbind(),
            loop_cancel: event_loop.getattr("cancel")?.unbind(),
            loop_abandon: event_loop.getattr("abandon")?.unbind(),
            loop_runs_one_of: event_loop.getattr("runs_one_of")?.unbind(),
            is_importing: py.import("erlang._imports")?.getattr("is_under_way_in")?.unbind(),
            flush_streams: py.import("erlang._streams")?.getattr("flush")?.unbind(),
            stacks: py.import("erlang._stacks")?.getattr("stacks")?.unbind(),
            int_from_bytes: py.get_type::<PyInt>().getattr("from_bytes")?.unbind(),
            little: PyString::new(py, "little").unbind(),
        })
    }
}

impl Interpreter {
    pub(crate) fn new(
        py: Python<'_>,
        scheduler: Arc<Scheduler>,
        host: Box<dyn Host>,
        facts: &Facts,
    ) -> PyResult<&'static Self> {
        let interpreter = Box::leak(Box::new(Interpreter {
            hooks: Hooks::new(py)?,
            memory: MemoryType::new(py)?,
            atoms: Attached::default(),
            names: Attached::default(),
            modules: Attached::default(),
            bases: Attached::default(),
            routes: Routes::default(),
            scheduler,
            errands: Errands::default(),
            releases: Releases::default(),
            questions: Questions::default(),
            gate: Gate::new(py),
            #[cfg(not(feature = "limited"))]
            visitors: Visitors::default(),
            host,
            output_pending: AtomicBool::new(false),
            next_task: AtomicU64::new(1),
            stalls: AtomicUsize::new(0),
            event_loop: Mutex::default(),
            set_version: facts.set_version,
            main_thread: ffi::SignalTarget::current(),
        }));
        ffi::bind_native_module(py, interpreter)?;
        Ok(interpreter)
    }

    // --- values ------------------------------------------------------------------------------

    pub(crate) fn atom<'py>(
        &self,
        py: Python<'py>,
        id: u64,
        text: impl FnOnce() -> String,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(atom) = self.atoms.with(py, |atoms| atoms.get(&id).map(|atom| atom.clone_ref(py))) {
            return Ok(atom.into_bound(py));
        }
        let atom = self.hooks.atom.bind(py).call1((text(),))?;
        self.atoms.with(py, |atoms| keep(atoms, id, &atom));
        Ok(atom)
    }

    /// The name of an atom as a plain `str`, interned so that attribute look-ups compare pointers.
    pub(crate) fn name<'py>(
        &self,
        py: Python<'py>,
        id: u64,
        text: impl FnOnce() -> String,
    ) -> PyResult<Bound<'py, PyString>> {
        if let Some(name) = self.names.with(py, |names| names.get(&id).map(|name| name.clone_ref(py))) {
            return Ok(name.into_bound(py));
        }
        let name = PyString::intern(py, &text());
        self.names.with(py, |names| keep(names, id, &name));
        Ok(name)
    }

    pub(crate) fn big<'py>(
        &self,
        py: Python<'py>,
        negative: bool,
        magnitude: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let bytes = PyBytes::new(py, magnitude);
        let value = self.hooks.int_from_bytes.bind(py).call1((bytes, self.hooks.little.bind(py)))?;
        if negative { value.neg() } else { Ok(value) }
    }

    /// Sign and magnitude of an `int`, least significant byte first. The methods are those of `int`
    /// itself: a subclass may have others under their names.
    pub(crate) fn magnitude(&self, value: &Bound<'_, PyAny>) -> PyResult<(bool, Vec<u8>)> {
        let py = value.py();
        let int = py.get_type::<PyInt>();
        let negative = int.call_method1("__lt__", (value, 0))?.is_truthy()?;
        let positive = int.call_method1("__abs__", (value,))?;
        let bits: usize = int.call_method1("bit_length", (&positive,))?.extract()?;
        let bytes =
            int.call_method1("to_bytes", (&positive, bits.div_ceil(8), self.hooks.little.bind(py)))?;
        Ok((negative, bytes.cast::<PyBytes>()?.as_bytes().to_vec()))
    }

    pub(crate) fn opaque<'py>(
        &self,
        py: Python<'py>,
        opaque: Opaque,
        etf: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let class = match opaque {
            Opaque::Pid => &self.hooks.pid,
            Opaque::Reference => &self.hooks.reference,
            Opaque::Port => &self.hooks.port,
            // Whoever has the bytes could have any function called: Python code has a handle.
            Opaque::Function => {
                return self.hooks.function.bind(py).call1((ffi::function_capsule(py, etf)?,));
            }
        };
        class.bind(py).call1((PyBytes::new(py, etf),))
    }

    pub(crate) fn function_etf(&self, value: &Bound<'_, PyAny>) -> Option<Vec<u8>> {
        if !value.get_type().is(&self.hooks.function) {
            return None;
        }
        ffi::capsule_function(&value.getattr("_handle").ok()?)
    }

    pub(crate) fn opaque_etf(&self, value: &Bound<'_, PyAny>) -> Option<Vec<u8>> {
        let class = value.get_type();
        let hooks = &self.hooks;
        if ![&hooks.pid, &hooks.reference, &hooks.port].iter().any(|known| class.is(*known)) {
            return None;
        }
        let etf = value.getattr("etf").ok()?;
        Some(etf.cast::<PyBytes>().ok()?.as_bytes().to_vec())
    }

    pub(crate) fn is_atom(&self, value: &Bound<'_, PyAny>) -> bool {
        value.get_type().is(&self.hooks.atom)
    }

    pub(crate) fn struct_parts<'py>(
        &self,
        value: &Bound<'py, PyAny>,
    ) -> Option<(String, Bound<'py, PyDict>)> {
        if !value.get_type().is(&self.hooks.structure) {
            return None;
        }
        let name = value.getattr("name").ok()?.extract().ok()?;
        let fields = value.getattr("fields").ok()?.cast_into::<PyDict>().ok()?;
        Some((name, fields))
    }

    pub(crate) fn build_struct<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
        fields: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.hooks.from_struct.bind(py).call1((name, fields))
    }

    pub(crate) fn describe<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.hooks.describe.bind(value.py()).call1((value,))
    }

    /// Whether Python code said what stands for values of this type. It mostly said so of none.
    pub(crate) fn has_encoder(&self, value: &Bound<'_, PyAny>) -> bool {
        let (py, hooks) = (value.py(), &self.hooks);
        !hooks.encoders.bind(py).is_empty()
            && hooks
                .has_encoder
                .bind(py)
                .call1((value.get_type(),))
                .and_then(|has| has.is_truthy())
                .unwrap_or(false)
    }

    /// What is to cross as a reference, if this says so.
    pub(crate) fn referred<'py>(&self, value: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        if value.get_type().is(&self.hooks.object_reference) { value.getattr("target").ok() } else { None }
    }

    /// Type, pool, place and number of a reference.
    pub(crate) fn refer<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<[Bound<'py, PyAny>; 4]> {
        self.hooks.refer.bind(object.py()).call1((object,))?.extract()
    }

    /// An object that the worker process of that number keeps.
    pub(crate) fn object_numbered<'py>(
        &self,
        py: Python<'py>,
        worker: i64,
        number: i64,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.hooks.numbered.bind(py).call1((worker, number))
    }

    /// Says, in a worker process, which one it is: `(pool, place)`.
    pub fn settle(&self, place: &Bound<'_, PyAny>) -> Result<(), Fault> {
        let settled = place
            .cast::<PyTuple>()
            .map_err(PyErr::from)
            .and_then(|place| self.hooks.settle.bind(place.py()).call1(place));
        settled.map(drop).map_err(|error| Fault::new(Kind::Encode, format!("place: {error}")))
    }

    /// Lets go of objects whose references come nowhere.
    pub fn drop_objects(&self, py: Python<'_>, numbers: &[u64]) {
        if !numbers.is_empty()
            && let Err(error) = self.hooks.drop.bind(py).call1((numbers.to_vec(),))
        {
            error.write_unraisable(py, None);
        }
    }

    /// Why a reference leads to no object, if that is what the exception says.
    pub(crate) fn why_not_here(&self, py: Python<'_>, error: &PyErr) -> Option<Kind> {
        let value = error.value(py);
        if !value.get_type().is(&self.hooks.not_here) {
            return None;
        }
        let elsewhere =
            value.getattr("kind").is_ok_and(|kind| kind.eq(Kind::Elsewhere.name()).unwrap_or(false));
        Some(if elsewhere { Kind::Elsewhere } else { Kind::NotAvailable })
    }

    pub(crate) fn set_version(&self) -> bool {
        self.set_version
    }

    // --- requests ----------------------------------------------------------------------------

    /// The module, imported if need be. One that another thread is still importing is waited for.
    pub(crate) fn import<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(module) = ffi::imported(name)
            && self.modules.with(py, |modules| modules.contains_key(&address(&module)))
        {
            return Ok(module);
        }
        let text = name.to_str()?;
        if text.is_empty() || text.contains('\0') {
            return Err(no_such_module(text));
        }
        let module = py.import(name)?.into_any();
        self.modules.with(py, |modules| keep(modules, address(&module), &module));
        Ok(module)
    }

    /// The base namespace of a pool, where the name is the one it goes by.
    pub(crate) fn base_named<'py>(
        &self,
        py: Python<'py>,
        pool: usize,
        name: &Bound<'py, PyString>,
    ) -> Option<Bound<'py, PyAny>> {
        let is_base = name.to_str().is_ok_and(|name| name == "__main__");
        is_base.then(|| self.base(py, pool).ok()).flatten().map(Bound::into_any)
    }

    pub(crate) fn base<'py>(&self, py: Python<'py>, pool: usize) -> PyResult<Bound<'py, PyModule>> {
        if let Some(base) = self.bases.with(py, |bases| bases.get(&pool).map(|base| base.clone_ref(py))) {
            return Ok(base.into_bound(py));
        }
        let made = self.hooks.new_base.bind(py).call0()?.cast_into::<PyModule>()?;
        // Another thread may have made one meanwhile.
        let base = self
            .bases
            .with(py, |bases| bases.entry(pool).or_insert_with(|| made.clone().unbind()).clone_ref(py));
        Ok(base.into_bound(py))
    }

    /// Lets go of what a pool kept.
    pub(crate) fn forget_pool(&'static self, py: Python<'_>, pool: usize) {
        let base = self.bases.with(py, |bases| bases.remove(&pool));
        let Some(base) = base else { return };
        if let Err(error) = self.hooks.forget_base.bind(py).call1((base.bind(py),)) {
            error.write_unraisable(py, None);
        }
        self.release(base.into_any());
    }

    pub(crate) fn run_code<'py>(
        &self,
        py: Python<'py>,
        pool: usize,
        source: &Source<'py>,
        wants_value: bool,
        context: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let base = self.base(py, pool)?;
        let run = self.hooks.run_code.bind(py);
        let run = context.map_or_else(|| Ok(run.clone()), |context| self.within(context, run))?;
        run.call1((&source.code, &source.variables, base, &source.file, source.line, wants_value))
    }

    /// The function, as one that runs in a context.
    pub(crate) fn within<'py>(
        &self,
        context: &Bound<'py, PyDict>,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.hooks.within.bind(context.py()).call1((context, function))
    }

    /// The value, as what a function returned that ran in a context.
    pub(crate) fn same_within<'py>(
        &self,
        context: &Bound<'py, PyDict>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.within(context, self.hooks.same.bind(context.py()))?.call1((value,))
    }

    /// The coroutine, as one that is awaited in a context.
    pub(crate) fn await_within<'py>(
        &self,
        context: &Bound<'py, PyDict>,
        coroutine: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.hooks.await_within.bind(context.py()).call1((context, coroutine))
    }

    pub(crate) fn start_pool<'py>(
        &self,
        py: Python<'py>,
        pool: usize,
        init: Option<&Source<'py>>,
        paths: &[String],
        env: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let base = self.base(py, pool)?;
        let code = init.map(|source| &source.code);
        let (file, line) = init.map_or((None, 1), |source| (source.file.clone(), source.line));
        self.hooks.init.bind(py).call1((base, code, file, line, paths, env))
    }

    pub(crate) fn reload<'py>(
        &self,
        py: Python<'py>,
        module: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let text = module.to_str()?;
        if text.is_empty() || text.contains('\0') {
            return Err(no_such_module(text));
        }
        self.hooks.reload.bind(py).call1((module,))
    }

    pub(crate) fn describe_error<'py>(&self, py: Python<'py>, error: &PyErr) -> PyResult<Bound<'py, PyAny>> {
        // With its traceback, which pyo3 keeps beside it on older versions.
        let value = error.clone_ref(py).into_value(py);
        self.hooks.describe_error.bind(py).call1((value,))
    }

    /// Sets where `print` of the calling thread goes.
    pub(crate) fn set_leader(&self, py: Python<'_>, etf: &[u8]) -> PyResult<()> {
        let pid = self.hooks.pid.bind(py).call1((PyBytes::new(py, etf),))?;
        self.hooks.leader.bind(py).call_method1("set", (pid,))?;
        Ok(())
    }

    /// Sends on what `print` left without a newline.
    pub(crate) fn flush_output(&self, py: Python<'_>) {
        if self.output_pending.load(Ordering::Relaxed) && self.output_pending.swap(false, Ordering::Relaxed) {
            let pending = self.hooks.flush_output.bind(py).call0().and_then(|more| more.is_truthy());
            if pending.unwrap_or(false) {
                self.output_pending.store(true, Ordering::Relaxed);
            }
        }
    }

    // --- interrupting ------------------------------------------------------------------------

    /// Stops what still runs for a ticket that is settled. Needs no GIL itself.
    pub(crate) fn interrupt(&self, ticket: &Arc<Ticket>, phase: Phase) {
        self.questions.interrupt(ticket);
        match phase {
            Phase::Running if self.scheduler.runs_on_main(ticket) => self.main_thread.interrupt(),
            Phase::Running | Phase::Awaiting => self.errands.interrupt(ticket.clone(), phase),
            Phase::Queued | Phase::Settled => {}
        }
    }

    pub(crate) fn interrupt_main(&self) {
        self.main_thread.interrupt();
    }

    /// False where the thread is to be asked again: it is importing, and that has to end.
    pub(crate) fn interrupt_attached(
        &self,
        py: Python<'_>,
        ticket: &Arc<Ticket>,
        phase: Phase,
    ) -> PyResult<bool> {
        if phase == Phase::Awaiting {
            self.hooks.loop_cancel.bind(py).call1((ticket.task(),))?;
            return Ok(true);
        }
        let Some(thread) = self.scheduler.thread_of(ticket) else { return Ok(true) };
        if self.hooks.is_importing.bind(py).call1((thread.number(),))?.is_truthy()? {
            return Ok(false);
        }
        // Looked at again: asking Python may have let the thread go on. With the GIL held it cannot
        // finish this request and take another meanwhile.
        if let Some(thread) = self.scheduler.thread_of(ticket) {
            thread.raise(self.hooks.cancelled.bind(py));
        }
        Ok(true)
    }

    /// Answers with what the pool of the ticket is at.
    pub(crate) fn tell_stacks(&'static self, py: Python<'_>, ticket: &Ticket) {
        ticket.begin();
        let calls = self.scheduler.calls(ticket.pool());
        let told = self.hooks.stacks.bind(py).call1((calls,));
        match told {
            Ok(stacks) => ticket.settle_value(self, &stacks),
            Err(error) => crate::runner::raise(py, self, ticket, &error),
        }
    }

    /// Stops a call inline whose time is up, unless it is importing.
    #[cfg(not(feature = "limited"))]
    pub(crate) fn interrupt_visit(&self, py: Python<'_>, visit: &Visit) {
        let importing = self.hooks.is_importing.bind(py).call1((visit.thread().number(),));
        match importing.and_then(|importing| importing.is_truthy()) {
            Ok(true) => {}
            Ok(false) => visit.interrupt(self.hooks.cancelled.bind(py)),
            Err(error) => error.write_unraisable(py, None),
        }
    }

    /// Lets go of an object from a thread that must not wait for the GIL.
    pub fn release(&'static self, object: Py<PyAny>) {
        if crate::fork::is_child() {
            std::mem::forget(object);
        } else {
            self.releases.release(self, object);
        }
    }
}

/// Adds to a cache what is not in it, unless it is full.
fn keep<T>(cache: &mut ByWord<Py<T>>, key: u64, object: &Bound<'_, T>) {
    if cache.len() < MAX_CACHED_NAMES {
        cache.entry(key).or_insert_with(|| object.clone().unbind());
    }
}

fn address(object: &Bound<'_, PyAny>) -> u64 {
    object.as_ptr() as u64
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
