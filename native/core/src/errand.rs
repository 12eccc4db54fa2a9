//! Small jobs that need the GIL, for threads that must not wait for it, such as the watch that stops a call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;

use crate::interpreter::Interpreter;
use crate::ticket::{Phase, Ticket};

/// How long a thread that cannot be interrupted just now is left alone.
const ASK_AGAIN: Duration = Duration::from_millis(5);

enum Errand {
    Interrupt(Arc<Ticket>, Phase),
    InterruptLoop,
    ReplaceLoop,
    ForgetPool(usize),
    TellStacks(Arc<Ticket>),
    FlushStreams,
    InterruptReleases,
}

pub struct Errands {
    sender: Sender<Errand>,
    receiver: Mutex<Option<Receiver<Errand>>>,
    /// Whether somebody is on the way to the streams.
    flushes: AtomicBool,
}

impl Default for Errands {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Errands { sender, receiver: Mutex::new(Some(receiver)), flushes: AtomicBool::new(false) }
    }
}

impl Errands {
    pub fn interrupt(&self, ticket: Arc<Ticket>, phase: Phase) {
        self.send(Errand::Interrupt(ticket, phase));
    }

    pub fn interrupt_loop(&self) {
        self.send(Errand::InterruptLoop);
    }

    pub fn replace_loop(&self) {
        self.send(Errand::ReplaceLoop);
    }

    pub fn forget_pool(&self, pool: usize) {
        self.send(Errand::ForgetPool(pool));
    }

    pub fn tell_stacks(&self, ticket: Arc<Ticket>) {
        self.send(Errand::TellStacks(ticket));
    }

    /// Where the GIL is held elsewhere for long, one is enough.
    pub fn flush_streams(&self) {
        if !self.flushes.swap(true, Ordering::Relaxed) {
            self.send(Errand::FlushStreams);
        }
    }

    pub fn interrupt_releases(&self) {
        self.send(Errand::InterruptReleases);
    }

    fn send(&self, errand: Errand) {
        // The receiver lives as long as the interpreter.
        let _ = self.sender.send(errand);
    }
}

pub fn spawn(interpreter: &'static Interpreter) -> std::io::Result<()> {
    let receiver = Mutex::new(lock(&interpreter.errands.receiver).take().expect("spawned once"));
    // Some of it is user code, with the stack that user code gets.
    let thread = crate::runner::thread("py-errands");
    let serve = move |py: Python<'_>| {
        while let Ok(errand) = crate::runner::idle(py, interpreter, || lock(&receiver).recv()) {
            run(py, interpreter, errand);
        }
    };
    thread.spawn(move || crate::runner::attached(interpreter, serve)).map(drop)
}

fn run(py: Python<'_>, interpreter: &'static Interpreter, errand: Errand) {
    let result = match errand {
        Errand::Interrupt(ticket, phase) => interpreter.interrupt_attached(py, &ticket, phase).map(|done| {
            if !done {
                py.detach(|| std::thread::sleep(ASK_AGAIN));
                interpreter.errands.interrupt(ticket, phase);
            }
        }),
        Errand::InterruptLoop => interpreter.interrupt_loop(py),
        Errand::ReplaceLoop => interpreter.replace_loop(py),
        Errand::ForgetPool(pool) => {
            interpreter.forget_pool(py, pool);
            Ok(())
        }
        Errand::TellStacks(ticket) => {
            interpreter.tell_stacks(py, &ticket);
            Ok(())
        }
        Errand::FlushStreams => {
            interpreter.errands.flushes.store(false, Ordering::Relaxed);
            interpreter.hooks.flush_streams.bind(py).call0().map(drop)
        }
        Errand::InterruptReleases => {
            interpreter.releases.interrupt(interpreter, py);
            Ok(())
        }
    };
    if let Err(error) = result {
        error.write_unraisable(py, None);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
