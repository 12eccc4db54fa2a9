//! The threads that run Python: a stack that Python's own recursion limits fit in, one request
//! after another.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use pyo3::prelude::*;

use crate::ffi::{self, ThreadId};
#[cfg(not(feature = "limited"))]
use crate::inline::Visit;
use crate::interpreter::Interpreter;
use crate::ticket::Ticket;
use crate::wire::{Fault, Kind, Leader, Outcome, Wire};

/// Ordinary recursion in C (`repr` and `json` of nested lists, `compile` of long sources) is bounded
/// by Python for stacks of several megabytes. Only the pages that are touched take memory.
const STACK: usize = 64 * 1024 * 1024;

const LOOK_AGAIN: Duration = Duration::from_millis(1);

pub fn thread(name: &str) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK)
}

pub fn spawn(interpreter: &'static Interpreter, index: usize) {
    let spawned = thread(&format!("py-{index}")).spawn(move || serve(interpreter, index));
    if spawned.is_err() {
        interpreter.scheduler.not_spawned(index);
    }
}

/// Starts the thread of the event loop.
pub fn spawn_loop(interpreter: &'static Interpreter) {
    let run = move || {
        attached(interpreter, |py| {
            interpreter.introduce_loop(ThreadId::current(py));
            if let Err(error) = interpreter.run_loop(py) {
                error.write_unraisable(py, None);
            }
        });
    };
    if let Err(error) = thread("py-loop").spawn(run) {
        eprintln!("py: the thread of the event loop could not be started: {error}");
    }
}

/// Stops a call inline. The threads of ours wait for such calls, so this takes one that does not.
#[cfg(not(feature = "limited"))]
pub fn spawn_interrupt(interpreter: &'static Interpreter, visit: Arc<Visit>) {
    let run = move || Python::attach(|py| interpreter.interrupt_visit(py, &visit));
    if let Err(error) = thread("py-interrupt").spawn(run) {
        eprintln!("py: the thread that stops a call inline could not be started: {error}");
    }
}

/// Runs `body` on a thread of ours, attached. The thread has a thread state of its own, once, which
/// is what `threading.local` and debuggers expect.
pub fn attached(interpreter: &'static Interpreter, body: impl FnOnce(Python<'_>)) {
    let gate = &interpreter.gate;
    gate.enter();
    Python::attach(|py| {
        gate.adopt(py);
        body(py);
        gate.disown(py);
    });
    gate.leave();
}

/// Waits on a thread of ours, with others let in.
pub fn idle<R: Send>(
    py: Python<'_>,
    interpreter: &'static Interpreter,
    wait: impl FnOnce() -> R + Send,
) -> R {
    let gate = &interpreter.gate;
    gate.look(py);
    py.detach(|| {
        gate.leave();
        let result = wait();
        gate.enter();
        result
    })
}

/// Waits on any thread, with others let in.
pub fn wait_outside<R: Send>(
    py: Python<'_>,
    interpreter: &'static Interpreter,
    wait: impl FnOnce() -> R + Send,
) -> R {
    if interpreter.gate.is_inside() { idle(py, interpreter, wait) } else { py.detach(wait) }
}

thread_local! {
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The runner that the calling thread is, if it is one.
pub fn here() -> Option<usize> {
    HERE.get()
}

/// Runs requests until the thread is retired.
pub fn serve(interpreter: &'static Interpreter, index: usize) {
    attached(interpreter, |py| {
        HERE.set(Some(index));
        let scheduler = &interpreter.scheduler;
        let desk = scheduler.desk(index);
        let mut runner = Runner { interpreter, thread: ThreadId::current(py), leader: None };
        desk.introduce(runner.thread);
        let inbox = scheduler.inbox_of(index);
        loop {
            if let Some(ticket) = inbox.and_then(|inbox| inbox.urgent(desk.is_bare())) {
                scheduler.hurry(index, ticket);
            }
            if let Some(ticket) = desk.next() {
                runner.run(py, &ticket);
                interpreter.gate.progressed();
            } else if !scheduler.refill(index) && !idle(py, interpreter, || scheduler.wait(index)) {
                break;
            }
        }
    });
}

/// Runs one request where there are no other threads yet, and waits for its end.
pub fn run_alone(py: Python<'_>, interpreter: &'static Interpreter, ticket: &Arc<Ticket>) {
    Runner { interpreter, thread: ThreadId::current(py), leader: None }.run(py, ticket);
    // A coroutine has a loop on a thread of its own.
    while !ticket.is_settled() {
        py.detach(|| std::thread::sleep(LOOK_AGAIN));
    }
}

struct Runner {
    interpreter: &'static Interpreter,
    thread: ThreadId,
    leader: Option<Leader>,
}

impl Runner {
    fn run(&mut self, py: Python<'_>, ticket: &Arc<Ticket>) {
        if !ticket.begin() {
            return;
        }
        let answered = catch_unwind(AssertUnwindSafe(|| {
            follow(py, self.interpreter, &mut self.leader, ticket.wire());
            answer(py, self.interpreter, ticket);
        }));
        if answered.is_err() {
            ticket.fail(Kind::Crashed, "a panic inside Py; this is a bug, please report it");
        }
        if ticket.was_interrupted() {
            // It was interrupted, perhaps too late: the next request must not feel it.
            self.thread.take_back(py);
        }
    }
}

/// Lets `print` go where the caller's output goes.
fn follow(py: Python<'_>, interpreter: &Interpreter, leader: &mut Option<Leader>, wire: &dyn Wire) {
    let wanted = wire.leader();
    if wanted == Leader::Remote || *leader != Some(wanted) {
        *leader = interpreter.set_leader(py, &wire.leader_etf()).is_ok().then_some(wanted);
    }
}

fn answer(py: Python<'_>, interpreter: &'static Interpreter, ticket: &Arc<Ticket>) {
    let request = match ticket.wire().read(py, interpreter) {
        Ok(request) => request,
        Err(fault) => {
            ticket.settle(Outcome::Failed(fault));
            return;
        }
    };
    if request.is_for_effect() {
        ticket.run_for_effect();
    }
    let result = match request.run(py, interpreter, ticket.pool()) {
        Ok(value) if ffi::is_coroutine(&value) => match interpreter.await_on_loop(py, &value, ticket) {
            Ok(()) => return,
            Err(error) => Err(error),
        },
        result => result,
    };
    // What was printed is there before the answer is.
    interpreter.flush_output(py);
    match result {
        Ok(value) => ticket.settle_value(interpreter, &value),
        Err(error) => raise(py, interpreter, ticket, &error),
    }
}

pub fn raise(py: Python<'_>, interpreter: &'static Interpreter, ticket: &Ticket, error: &PyErr) {
    match interpreter.describe_error(py, error) {
        Ok(description) => ticket.settle(Outcome::Raised(interpreter, &description)),
        Err(_) => ticket.settle(Outcome::Failed(indescribable())),
    };
}

pub fn indescribable() -> Fault {
    Fault::new(Kind::Crashed, "Python raised an exception that could not be described")
}
