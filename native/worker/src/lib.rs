//! Wire 2: Python in a process of its own.
//!
//! The user's own interpreter imports this as `_erlang`, what every wire gives to Python, and as
//! `_erlang_worker`, whose functions never return.

mod control;
mod etf;
mod ffi;
mod frames;
mod host;
mod inbox;
mod outbox;
mod page;
mod request;
mod segments;
mod template;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use py_core::boot::{self, Facts};
use py_core::convert::{Read, Token};
use py_core::{Interpreter, Limits, Pool};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rustix::process::{Signal, getpgrp, kill_process_group};
use rustix::time::{ClockId, clock_gettime};

use crate::etf::{Malformed, Reader, VERSION};
use crate::ffi::Ways;
use crate::frames::{Fields, incoming, outgoing};
use crate::host::Worker;
use crate::inbox::Inbox;
use crate::outbox::{Frame, Outbox};
use crate::segments::Segments;

/// Requests are counted where they are made.
const NO_LIMIT: usize = usize::MAX / 2;

#[pymodule]
mod _erlang_worker {
    #[pymodule_export]
    use super::{fork_workers, serve};
}

/// Serves the pool that started this process, until that ends it.
#[pyfunction]
fn serve(py: Python<'_>) -> PyResult<()> {
    Process::settle(py)?.serve(py)
}

/// Runs `init` of the pool that started this process, and forks the workers that it asks for at the
/// abstract socket `name`. In those `forked` is called before they serve. `prepare` is called before they
/// are forked, with the numbers and native names of threads, for the names that Python has for them.
#[pyfunction]
fn fork_workers(
    py: Python<'_>,
    name: &str,
    prepare: &Bound<'_, PyAny>,
    forked: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let process = Process::settle(py)?;
    template::run(py, &process, name, prepare)?;
    forked.call0()?;
    process.serve(py)
}

/// A process that settled in: its main thread is the only one of ours.
struct Process {
    interpreter: &'static Interpreter,
    inbox: &'static Inbox,
    pool: Arc<Pool>,
}

impl Process {
    fn settle(py: Python<'_>) -> PyResult<Self> {
        let ways = Ways::take().ok_or_else(|| {
            PyRuntimeError::new_err("this is what a pool of Py starts; it has no use on its own")
        })?;
        let out: &'static Outbox = Box::leak(Box::new(Outbox::new(ways.answers)));
        let segments = Segments::new(ways.control);
        let inbox: &'static Inbox = Box::leak(Box::new(Inbox::new(ways.requests, out, segments)?));
        let config = py
            .detach(|| Config::from_frame(&inbox.first()))
            .map_err(|_| PyRuntimeError::new_err("the configuration is of another version of Py"))?;
        let interpreter = boot::settle(py, &config.facts, Box::new(Worker(inbox)))?;
        let pool = Arc::new(Pool::open(interpreter, config.limits));
        let _ = inbox.pool.set(Arc::clone(&pool));
        let _ = inbox.interpreter.set(interpreter);
        Ok(Process { interpreter, inbox, pool })
    }

    fn serve(self, py: Python<'_>) -> PyResult<()> {
        let Inbox { out, segments, .. } = self.inbox;
        out.open_page();
        segments.show_page(out);
        self.interpreter.questions.admit();
        boot::staff(self.interpreter)?;
        control::spawn(self.inbox)?;
        say_hello(py, out);
        boot::serve(self.interpreter);
        Ok(())
    }
}

fn say_hello(py: Python<'_>, out: &Outbox) {
    let pid = std::process::id();
    let version = py.version_info();
    let version = format!("{}.{}.{}", version.major, version.minor, version.patch);
    out.put(&Frame::new(outgoing::HELLO).bytes(&pid.to_be_bytes()).bytes(version.as_bytes()));
}

struct Config {
    facts: Facts,
    limits: Limits,
}

impl Config {
    /// A tuple: sink and leader, whether there are Decimals, whether sets have a version, threads, grace
    /// in milliseconds.
    fn from_frame(frame: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(frame);
        if fields.u8()? != incoming::CONFIGURE || fields.u8()? != VERSION {
            return Err(Malformed);
        }
        let document = etf::Document::new(fields.0)?;
        let atoms = Default::default();
        let mut reader = Reader::new(document.bytes, &document.marks, &atoms, None);
        let mut pid = || [&[VERSION], reader.raw()].concat();
        let (sink, leader) = (pid(), pid());
        let facts = Facts {
            sink,
            leader,
            decimal: boolean(&mut reader)?,
            set_version: boolean(&mut reader)?,
            in_node: false,
        };
        let (size, grace) = (number(&mut reader)?, number(&mut reader)?);
        let size = usize::try_from(size).map_err(|_| Malformed)?;
        Ok(Config {
            facts,
            limits: Limits { size, max_queue: NO_LIMIT, grace: Duration::from_millis(grace) },
        })
    }
}

fn boolean(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.next() {
        Token::Bool(value) => Ok(value),
        _ => Err(Malformed),
    }
}

fn number(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    match reader.next() {
        Token::Int(value) => u64::try_from(value).map_err(|_| Malformed),
        _ => Err(Malformed),
    }
}

/// What is left until a deadline on the clock that this machine's processes share, in nanoseconds;
/// none where that is zero.
fn left(deadline: u64) -> Option<Duration> {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32);
    (deadline != 0).then(|| Duration::from_nanos(deadline).saturating_sub(now))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this process, and those that it started.
fn leave() -> ! {
    if py_core::fork::is_child() {
        ffi::end_child(1);
    }
    let _ = kill_process_group(getpgrp(), Signal::KILL);
    std::process::abort()
}
