//! Calls that run on the caller's own thread, with a stack and a thread state that are kept for it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::convert;
use crate::ffi::{self, ThreadId};
use crate::gate::Closed;
use crate::interpreter::Interpreter;
use crate::request::Request;
use crate::runner;
use crate::stopwatch::{Stopwatch, Took};
use crate::ticket::Ticket;
use crate::wire::{Fault, Kind, Leader, Outcome};

/// A request that is read, run and answered on one thread.
pub trait Inline {
    /// What tells this function from others.
    fn function(&self) -> u64;

    /// The same for people.
    fn subject(&self) -> String;

    /// Runs it, where it is one that is run without being read.
    fn quick<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Option<PyResult<Bound<'py, PyAny>>>;

    /// Whether the caller wants to know only that it was done.
    fn is_for_effect(&self) -> bool;

    fn read<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Result<Request<'py>, Fault>;

    /// Whether this is where it prints.
    fn has_leader(&self, leader: Leader) -> bool;

    fn leader(&self) -> Leader;

    fn leader_etf(&self) -> Vec<u8>;

    /// Takes the answer; a later one replaces it.
    fn send(&mut self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool);

    /// The same request as one that is answered later: a coroutine is awaited elsewhere.
    fn defer(&mut self) -> Arc<Ticket>;
}

/// How a call went that ran inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    Answered(Took),
    /// The answer comes later.
    Deferred,
}

/// What callers inline are at, for the watch.
#[derive(Default)]
pub struct Visitors(Mutex<Vec<Arc<Visit>>>);

/// What one thread is at.
pub struct Visit {
    thread: ThreadId,
    epoch: Instant,
    /// When what it is at is to end, in nanoseconds since `epoch`; zero while it is at nothing.
    deadline: AtomicU64,
    /// That deadline, when it has passed.
    passed: AtomicU64,
    /// When somebody was sent to stop the call, in nanoseconds since `epoch`.
    asked: AtomicU64,
}

/// How long a call that was to stop is left alone.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A call inline ends at the latest then, whatever its own timeout: a scheduler that waits for it
/// keeps the VM from much, from stopping among others.
const LONGEST: Duration = Duration::from_secs(5);

const UP_INLINE: &str = "the time was up while it ran inline, where a call has 5 s at the most; without inline: true it has its timeout";

impl Visitors {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Visit>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn are_inside(&self) -> bool {
        self.lock().iter().any(|visit| visit.deadline.load(Ordering::Relaxed) != 0)
    }

    /// Those that are to be stopped now.
    pub fn overdue(&self, now: Instant) -> Vec<Arc<Visit>> {
        self.lock().iter().filter(|visit| visit.is_to_be_asked(now)).cloned().collect()
    }
}

impl Visit {
    fn ns(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_overdue(&self, now: Instant) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        deadline != 0 && deadline <= self.ns(now)
    }

    fn is_to_be_asked(&self, now: Instant) -> bool {
        let again = self.epoch + Duration::from_nanos(self.asked.load(Ordering::Relaxed)) + ASK_AGAIN;
        let due = self.is_overdue(now) && now >= again;
        if due {
            self.asked.store(self.ns(now), Ordering::Relaxed);
        }
        due
    }

    fn begin(&self, deadline: Instant) {
        let deadline = self.ns(deadline).max(1);
        self.passed.store(0, Ordering::Relaxed);
        self.deadline.store(deadline, Ordering::Relaxed);
    }

    /// Tells whether it was interrupted. The GIL is held, here and where it is interrupted: it orders
    /// what the two see.
    fn end(&self, py: Python<'_>) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        self.deadline.store(0, Ordering::Relaxed);
        let interrupted = deadline != 0 && self.passed.load(Ordering::Relaxed) == deadline;
        if interrupted {
            self.thread.take_back(py);
        }
        interrupted
    }

    /// Notes that the time is up, if it is.
    fn pass(&self, _: Python<'_>) {
        if self.is_overdue(Instant::now()) {
            self.passed.store(self.deadline.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub fn thread(&self) -> ThreadId {
        self.thread
    }

    /// Stops the call, if it still is one whose time is up.
    pub fn interrupt(&self, exception: &Bound<'_, PyAny>) {
        if self.is_overdue(Instant::now()) {
            self.passed.store(self.deadline.load(Ordering::Relaxed), Ordering::Relaxed);
            self.thread.raise(exception);
        }
    }
}

/// What a thread keeps between calls.
struct Guest {
    visit: Arc<Visit>,
    leader: Option<Leader>,
}

thread_local! {
    static GUEST: RefCell<Option<Guest>> = const { RefCell::new(None) };
}

/// Is the calling thread at a call inline?
pub fn is_here() -> bool {
    GUEST.with(|guest| guest.try_borrow().is_err())
}

/// Runs a request here, where that is possible now.
pub fn run(
    interpreter: &'static Interpreter,
    pool: usize,
    timeout: Option<Duration>,
    count: &AtomicU64,
    call: &mut impl Inline,
) -> Result<Ran, Closed> {
    let closely = interpreter.gate.let_in(|| call.function())?;
    let stopwatch = Stopwatch::start(&interpreter.scheduler, closely);
    let deadline = stopwatch.started() + timeout.map_or(LONGEST, |timeout| timeout.min(LONGEST));
    let ran = ffi::on_large_stack(|| {
        Python::attach(|py| {
            GUEST.with_borrow_mut(|guest| {
                let guest = guest.get_or_insert_with(|| Guest::new(py, interpreter));
                guest.run(py, interpreter, pool, deadline, call)
            })
        })
    });
    // Nobody else is inside to add to it.
    count.store(count.load(Ordering::Relaxed) + u64::from(ran.is_some()), Ordering::Relaxed);
    interpreter.gate.let_out();
    let took = stopwatch.stop(&interpreter.scheduler);
    if let Took::TooLong(lap) = took {
        interpreter.gate.overran(call.function(), call.subject(), lap);
    }
    match ran {
        Some(true) => Ok(Ran::Answered(took)),
        Some(false) => Ok(Ran::Deferred),
        None => Err(Closed::Unsupported),
    }
}

impl Guest {
    /// The thread state of the calling thread stays, so that `threading.local` and the gate know it.
    fn new(py: Python<'_>, interpreter: &'static Interpreter) -> Self {
        ffi::keep_thread_state(py);
        if let Err(error) = ffi::announce_large_stack(py) {
            error.write_unraisable(py, None);
        }
        interpreter.gate.adopt(py);
        interpreter.gate.look(py);
        let visit = Arc::new(Visit {
            thread: ThreadId::current(py),
            epoch: Instant::now(),
            deadline: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        });
        interpreter.visitors.lock().push(visit.clone());
        Guest { visit, leader: None }
    }

    /// False where the answer comes later.
    fn run(
        &mut self,
        py: Python<'_>,
        interpreter: &'static Interpreter,
        pool: usize,
        deadline: Instant,
        call: &mut impl Inline,
    ) -> bool {
        self.visit.begin(deadline);
        let answered = catch_unwind(AssertUnwindSafe(|| self.answer(py, interpreter, pool, call)));
        let was_interrupted = self.visit.end(py);
        if interpreter.gate.has_new_threads() {
            interpreter.gate.look(py);
        }
        match answered {
            Ok(false) => return false,
            Ok(true) if was_interrupted => fail(call, Kind::Timeout, UP_INLINE),
            Ok(true) => {}
            Err(_) => fail(call, Kind::Crashed, "a panic inside Py; this is a bug, please report it"),
        }
        true
    }

    /// False where the answer comes later.
    fn answer(
        &mut self,
        py: Python<'_>,
        interpreter: &'static Interpreter,
        pool: usize,
        call: &mut impl Inline,
    ) -> bool {
        if !self.leader.is_some_and(|leader| call.has_leader(leader)) {
            let leader = call.leader();
            self.leader = interpreter.set_leader(py, &call.leader_etf()).is_ok().then_some(leader);
        }
        let result = match call.quick(py, interpreter) {
            Some(result) => result,
            None => match call.read(py, interpreter) {
                Ok(request) => request.run(py, interpreter, pool),
                Err(fault) => {
                    call.send(Outcome::Failed(fault), &|| true);
                    return true;
                }
            },
        };
        if let Ok(value) = &result
            && ffi::is_coroutine(value)
        {
            // An interrupt that comes now is too late: the event loop keeps the time from here on.
            self.visit.end(py);
            defer(py, interpreter, call, value);
            return false;
        }
        interpreter.flush_output(py);
        let visit = &self.visit;
        match result {
            Ok(_) if call.is_for_effect() => call.send(Outcome::Done, &|| true),
            Ok(value) if convert::is_plain(&value) => {
                call.send(Outcome::Value(interpreter, &value), &|| true)
            }
            Ok(value) => {
                call.send(Outcome::Value(interpreter, &value), &|| !visit.is_overdue(Instant::now()));
                // What was given up for lack of time is told as that.
                visit.pass(py);
            }
            Err(error) => match interpreter.describe_error(py, &error) {
                Ok(description) => call.send(Outcome::Raised(interpreter, &description), &|| true),
                Err(_) => call.send(Outcome::Failed(runner::indescribable()), &|| true),
            },
        }
        true
    }
}

/// Has the event loop await a coroutine.
fn defer(
    py: Python<'_>,
    interpreter: &'static Interpreter,
    call: &mut impl Inline,
    coroutine: &Bound<'_, PyAny>,
) {
    let ticket = call.defer();
    if !ticket.begin() {
        return;
    }
    if call.is_for_effect() {
        ticket.run_for_effect();
    }
    if let Err(error) = interpreter.await_on_loop(py, coroutine, &ticket) {
        runner::raise(py, interpreter, &ticket, &error);
    }
}

fn fail(call: &mut impl Inline, kind: Kind, message: &str) {
    call.send(Outcome::Failed(Fault::new(kind, message)), &|| true);
}
