//! Coroutines: one event loop of asyncio for each interpreter, on a thread that user code may block.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::ffi;
use crate::interpreter::{Interpreter, lock};
use crate::question::Asker;
use crate::ticket::Ticket;
use crate::wire::Kind;

/// How long a loop that was interrupted may take to go on.
const LOOP_GRACE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct EventLoop {
    started: bool,
    thread: Option<ffi::ThreadId>,
    /// Since when it is stuck in spite of having been interrupted.
    interrupted: Option<Instant>,
    /// Whether somebody is on the way to see to it.
    errand: bool,
}

impl Interpreter {
    /// Has the event loop await `coroutine` and settle the ticket.
    pub(crate) fn await_on_loop<'py>(
        &'static self,
        py: Python<'py>,
        coroutine: &Bound<'py, PyAny>,
        ticket: &Arc<Ticket>,
    ) -> PyResult<()> {
        let started = std::mem::replace(&mut lock(&self.event_loop).started, true);
        if !started {
            crate::runner::spawn_loop(self);
        }
        let task = self.next_task.fetch_add(1, Ordering::Relaxed);
        if !ticket.hand_to_loop(task) {
            coroutine.call_method0("close")?;
            return Ok(());
        }
        self.scheduler.awaits(ticket);
        ticket.wire().awaits();
        let handle = ffi::ticket_capsule(py, ticket.clone())?;
        let asker = ffi::asker_capsule(py, Asker::of(ticket))?;
        self.hooks.loop_submit.bind(py).call1((task, coroutine, handle, asker)).map(drop)
    }

    pub(crate) fn introduce_loop(&self, thread: ffi::ThreadId) {
        lock(&self.event_loop).thread = Some(thread);
    }

    /// Interrupts a loop that keeps a cancelled task from ending; one that does not mind is replaced.
    pub(crate) fn unblock_loop(&self, now: Instant) {
        if self.scheduler.stuck_tasks(now).is_empty() {
            lock(&self.event_loop).interrupted = None;
            return;
        }
        let mut event_loop = lock(&self.event_loop);
        // One errand at a time: while the GIL is held elsewhere they would pile up.
        if event_loop.errand {
            return;
        }
        match event_loop.interrupted {
            None => self.errands.interrupt_loop(),
            Some(since) if now.saturating_duration_since(since) >= LOOP_GRACE => self.errands.replace_loop(),
            Some(_) => return,
        }
        event_loop.errand = true;
    }

    /// Interrupts the step that the loop is at, if it belongs to a task that was to end.
    pub(crate) fn interrupt_loop(&self, py: Python<'_>) -> PyResult<()> {
        lock(&self.event_loop).errand = false;
        if self.loop_is_blocked(py)? {
            let mut event_loop = lock(&self.event_loop);
            event_loop.interrupted = Some(Instant::now());
            if let Some(thread) = event_loop.thread {
                thread.raise(self.hooks.cancelled.bind(py));
            }
        }
        Ok(())
    }

    /// Whether the loop is at a step of a task that should have ended long ago. A loop that only had
    /// to wait for the GIL is not.
    fn loop_is_blocked(&self, py: Python<'_>) -> PyResult<bool> {
        let keys = self.scheduler.stuck_tasks(Instant::now());
        self.hooks.loop_runs_one_of.bind(py).call1((keys,))?.is_truthy()
    }

    /// Leaves a loop to itself that is blocked for good, and starts another. What it was at is lost.
    pub(crate) fn replace_loop(&'static self, py: Python<'_>) -> PyResult<()> {
        lock(&self.event_loop).errand = false;
        if !self.loop_is_blocked(py)? {
            return Ok(());
        }
        lock(&self.event_loop).interrupted = None;
        let lost = self.scheduler.take_awaiting();
        self.hooks.loop_abandon.bind(py).call0()?;
        for ticket in lost {
            ticket.fail(
                Kind::Crashed,
                "the event loop was blocked by another call for good and had to be replaced",
            );
        }
        crate::runner::spawn_loop(self);
        Ok(())
    }

    pub(crate) fn run_loop(&self, py: Python<'_>) -> PyResult<()> {
        self.hooks.loop_run.bind(py).call0().map(drop)
    }
}
