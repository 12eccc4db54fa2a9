//! Python's first thread: it boots the interpreter, or finds it there, stays its main thread and
//! serves calls.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::ffi;
use crate::interpreter::Interpreter;
use crate::scheduler::{MAIN, Scheduler};
use crate::ticket::Ticket;
use crate::wire::Host;
use crate::{errand, runner, watch};

/// What the other side knows and Python has to be told.
pub struct Facts {
    /// The pid of the process that swallows I/O replies, as external term format.
    pub sink: Vec<u8>,
    /// The group leader of whatever prints outside of a call, likewise.
    pub leader: Vec<u8>,
    /// Whether `%Decimal{}` is there.
    pub decimal: bool,
    /// Whether `%MapSet{}` has a `version`.
    pub set_version: bool,
    /// Whether this process is the BEAM's.
    pub in_node: bool,
}

/// The interpreter that is to be booted.
#[cfg(not(feature = "limited"))]
pub struct Home {
    /// The executable whose `sys.prefix`, site-packages and venv are to be used.
    pub executable: String,
    /// The folder of the `erlang` package.
    pub python_path: String,
}

#[cfg(not(feature = "limited"))]
pub type Ready = Box<dyn FnOnce(Result<&'static Interpreter, String>) + Send>;

/// Boots Python on a thread of its own and tells `ready`. To be called once in a process.
#[cfg(not(feature = "limited"))]
pub fn boot(home: Home, facts: Facts, host: Box<dyn Host>, ready: Ready) -> Result<(), String> {
    let main = move || match initialize(&home, &facts, host) {
        Ok(interpreter) => {
            ready(Ok(interpreter));
            serve(interpreter);
        }
        Err(message) => ready(Err(message)),
    };
    runner::thread("py-main").spawn(main).map(drop).map_err(|error| format!("no thread for Python: {error}"))
}

#[cfg(not(feature = "limited"))]
fn initialize(home: &Home, facts: &Facts, host: Box<dyn Host>) -> Result<&'static Interpreter, String> {
    let executable = ffi::c_string(&home.executable)?;
    ffi::initialize(&executable).map_err(|error| format!("Python did not start: {error}"))?;
    Python::attach(|py| {
        let path = py.import("sys").and_then(|sys| sys.getattr("path"));
        path.and_then(|path| path.call_method1("append", (&home.python_path,)))
            .and_then(|_| settle(py, facts, host))
            .and_then(|interpreter| staff(interpreter).map(|()| interpreter))
            .map_err(|error| explain(py, &error))
    })
}

/// Runs what a pool needs before it serves on the calling thread, which settled in and is the only one.
pub fn rehearse(py: Python<'_>, interpreter: &'static Interpreter, start: &Arc<Ticket>) {
    runner::run_alone(py, interpreter, start);
}

/// Serves requests on the calling thread, which settled in.
pub fn serve(interpreter: &'static Interpreter) {
    runner::serve(interpreter, MAIN);
}

/// Settles in the interpreter that the calling thread, its main one, is attached to. The `erlang`
/// package can be imported. Starts no thread.
pub fn settle(py: Python<'_>, facts: &Facts, host: Box<dyn Host>) -> PyResult<&'static Interpreter> {
    let scheduler = Scheduler::new();
    let interpreter = Interpreter::new(py, Arc::clone(&scheduler), host, facts)?;
    py.import("erlang._boot")?.call_method1("start", (config(py, facts)?,))?;
    scheduler.attach(interpreter);
    Ok(interpreter)
}

/// Starts the threads that an interpreter needs beside its main one.
pub fn staff(interpreter: &'static Interpreter) -> PyResult<()> {
    errand::spawn(interpreter)?;
    watch::spawn(interpreter)?;
    Ok(())
}

fn config<'py>(py: Python<'py>, facts: &Facts) -> PyResult<Bound<'py, PyDict>> {
    let pid = py.import("erlang._types")?.getattr("Pid")?;
    let config = PyDict::new(py);
    config.set_item("sink", pid.call1((PyBytes::new(py, &facts.sink),))?)?;
    config.set_item("leader", pid.call1((PyBytes::new(py, &facts.leader),))?)?;
    config.set_item("signal", ffi::interrupt_signal())?;
    config.set_item("decimal", facts.decimal)?;
    config.set_item("set_version", facts.set_version)?;
    config.set_item("in_node", facts.in_node)?;
    Ok(config)
}

#[cfg(not(feature = "limited"))]
fn explain(py: Python<'_>, error: &PyErr) -> String {
    let lines = py
        .import("traceback")
        .and_then(|traceback| traceback.call_method1("format_exception", (error.value(py),)))
        .and_then(|lines| lines.extract::<Vec<String>>());
    lines.map_or_else(|_| error.to_string(), |lines| lines.concat())
}
