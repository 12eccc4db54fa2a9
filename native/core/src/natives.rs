//! What Python calls: the functions of `_erlang`.

use std::sync::atomic::Ordering;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};

use crate::ffi;
use crate::interpreter::Interpreter;
use crate::wire::{Address, Outcome};

type Arguments<'a, 'py> = &'a [Bound<'py, PyAny>];

pub fn send<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    arguments: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [to, message] = arguments else {
        return Err(PyTypeError::new_err("send(dest, message) takes two arguments"));
    };
    let sent = if let Some(etf) = interpreter.opaque_etf(to) {
        interpreter.host.send(interpreter, Address::Pid(&etf), message)
    } else if let Ok(name) = to.cast::<PyString>() {
        interpreter.host.send(interpreter, Address::Name(name.to_str()?), message)
    } else {
        return Err(PyTypeError::new_err("dest must be an erlang.Pid or a registered name"));
    };
    let sent = sent.map_err(|fault| PyTypeError::new_err(fault.message))?;
    Ok(pyo3::types::PyBool::new(py, sent).to_owned().into_any())
}

pub use crate::question::{ask, asker, may_ask, runs};

/// The request that the main thread is to stop, as a number; None where there is none.
pub fn interrupted<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    _: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let interrupted = interpreter.scheduler.interrupted_on_main();
    Ok(interrupted.map_or_else(|| py.None().into_bound(py), |number| PyInt::new(py, number).into_any()))
}

pub fn finish<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    arguments: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [handle, value, error] = arguments else {
        return Err(PyTypeError::new_err("finish(handle, value, error) takes three arguments"));
    };
    let ticket = ffi::capsule_ticket(handle)?;
    interpreter.scheduler.awaited(&ticket);
    if error.is_none() {
        ticket.settle_value(interpreter, value);
    } else {
        let description = interpreter.hooks.describe_error.bind(py).call1((error,))?;
        ticket.settle(Outcome::Raised(interpreter, &description));
    }
    Ok(py.None().into_bound(py))
}

pub fn pending_output<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    _: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    interpreter.output_pending.store(true, Ordering::Relaxed);
    Ok(py.None().into_bound(py))
}

/// The event loop is about to wait for events.
pub fn loop_waits<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    _: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    interpreter.gate.look(py);
    interpreter.gate.leave();
    Ok(py.None().into_bound(py))
}

/// The event loop is back from waiting.
pub fn loop_returns<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    _: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    py.detach(|| interpreter.gate.enter());
    Ok(py.None().into_bound(py))
}

/// The base namespace of the pool whose request the calling thread is at.
pub fn base<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    _: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let ticket = crate::runner::here().and_then(|runner| interpreter.scheduler.ticket_of(runner));
    let ticket = ticket.ok_or_else(|| PyRuntimeError::new_err("no request runs on this thread"))?;
    Ok(interpreter.base(py, ticket.pool())?.into_any())
}

/// Something begins, or ended, that may keep items of a stream waiting: `erlang._streams.flush` is called while it lasts.
pub fn may_stall<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    arguments: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [begins] = arguments else {
        return Err(PyTypeError::new_err("may_stall(begins) takes one argument"));
    };
    if begins.is_truthy()? {
        interpreter.stalls.fetch_add(1, Ordering::Relaxed);
    } else {
        interpreter.stalls.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(py.None().into_bound(py))
}

/// Has a thread of a session's interrupted, or takes that back.
pub fn interrupt_thread<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    arguments: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [ident, interrupt] = arguments else {
        return Err(PyTypeError::new_err("interrupt_thread(ident, interrupt) takes two arguments"));
    };
    let thread = ffi::ThreadId::numbered(ident.extract()?);
    if interrupt.is_truthy()? {
        thread.raise(interpreter.hooks.cancelled.bind(py));
    } else {
        thread.take_back(py);
    }
    Ok(py.None().into_bound(py))
}

/// A view of the same bytes that promises for them: nobody changes them as long as anything refers to it.
pub fn freeze<'py>(
    interpreter: &'static Interpreter,
    _: Python<'py>,
    arguments: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [view] = arguments else {
        return Err(PyTypeError::new_err("freeze(view) takes one argument"));
    };
    interpreter.memory.freeze(view)
}

/// What these functions do where this is a child that Python code forked: nothing connects it with the BEAM.
pub mod in_child {
    use pyo3::exceptions::PyRuntimeError;
    use pyo3::prelude::*;
    use pyo3::types::PyBool;

    pub fn nothing(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(py.None().into_bound(py))
    }

    pub fn no(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(PyBool::new(py, false).to_owned().into_any())
    }

    pub fn refused(_: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Err(PyRuntimeError::new_err("this is a child process, which nobody answers: its parent can ask"))
    }
}
