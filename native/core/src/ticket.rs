//! One request from submission to its single answer.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::convert;
use crate::interpreter::Interpreter;
use crate::scheduler::{Canceller, Scheduler};
use crate::wire::{Fault, Kind, Outcome, Wire};

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const AWAITING: u8 = 2;
const SETTLED: u8 = 3;

/// The first request was submitted soon after it, if not before.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What a caller is told whose request did not come to run.
pub const UP_BEFORE: &str = "the time was up before it could run";

/// Where a request is when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Queued,
    /// On a thread of the pool.
    Running,
    /// A coroutine on the event loop.
    Awaiting,
    /// Answered, or never to be answered.
    Settled,
}

/// What became of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// No answer will ever come.
    Cancelled,
    /// The answer was sent, or surely will be.
    Replied,
}

/// A request and what is known of it. It is settled once: by the thread that ran it, or by whoever
/// ends it before. The transition to `SETTLED` happens once, and its winner alone answers.
pub struct Ticket<W: Wire + ?Sized = dyn Wire> {
    phase: AtomicU8,
    monitored: AtomicBool,
    for_effect: AtomicBool,
    interrupted: AtomicBool,
    /// Whether it is in a queue: changed by the scheduler alone, under its lock.
    queued: AtomicBool,
    pool: usize,
    caller: u64,
    submitted: Instant,
    deadline: Option<Instant>,
    started_ns: AtomicU64,
    settled_ns: AtomicU64,
    task: AtomicU64,
    wire: W,
}

impl<W: Wire + 'static> Ticket<W> {
    pub(crate) fn new(pool: usize, wire: W, timeout: Option<Duration>) -> Arc<Ticket> {
        let submitted = Instant::now();
        Arc::new(Ticket {
            phase: AtomicU8::new(QUEUED),
            monitored: AtomicBool::new(false),
            for_effect: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            pool,
            caller: wire.caller(),
            submitted,
            // A timeout beyond what the clock can hold is none.
            deadline: timeout.and_then(|timeout| submitted.checked_add(timeout)),
            started_ns: AtomicU64::new(0),
            settled_ns: AtomicU64::new(0),
            task: AtomicU64::new(0),
            wire,
        })
    }
}

impl Ticket {
    pub(crate) fn wire(&self) -> &dyn Wire {
        &self.wire
    }

    pub fn phase(&self) -> Phase {
        phase(self.phase.load(Ordering::Acquire))
    }

    /// True where it was settled by the thread that ran it.
    pub(crate) fn is_answered(&self) -> bool {
        self.is_settled() && !self.was_interrupted()
    }

    pub fn submitted(&self) -> Instant {
        self.submitted
    }

    /// Tells it from those before and after it in the same place of memory.
    pub(crate) fn number(self: &Arc<Self>) -> u64 {
        let since = self.submitted.duration_since(*EPOCH).as_nanos() as u64;
        Arc::as_ptr(self).addr() as u64 ^ since.rotate_left(20)
    }

    /// When it began to run, if it did.
    pub(crate) fn started(&self) -> Option<Instant> {
        match self.started_ns.load(Ordering::Relaxed) {
            0 => None,
            started => Some(self.submitted + Duration::from_nanos(started)),
        }
    }

    pub fn is_overdue(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    pub(crate) fn pool(&self) -> usize {
        self.pool
    }

    pub(crate) fn caller(&self) -> u64 {
        self.caller
    }

    /// Notes whether it is in a queue, and tells whether it was.
    pub(crate) fn set_queued(&self, queued: bool) -> bool {
        let before = self.queued.load(Ordering::Relaxed);
        self.queued.store(queued, Ordering::Relaxed);
        before
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.queued.load(Ordering::Relaxed)
    }

    /// The key of the task that runs the coroutine.
    pub(crate) fn task(&self) -> u64 {
        self.task.load(Ordering::Relaxed)
    }

    /// False where the request must not run: it was settled while it was in the queue, or is now, since
    /// its time is up.
    pub(crate) fn begin(&self) -> bool {
        let now = Instant::now();
        let age = u64::try_from(now.saturating_duration_since(self.submitted).as_nanos()).unwrap_or(u64::MAX);
        self.started_ns.store(age.max(1), Ordering::Relaxed);
        if self.is_overdue(now) {
            self.settle(Outcome::Failed(Fault::new(Kind::Timeout, UP_BEFORE)));
            return false;
        }
        self.advance(QUEUED, RUNNING)
    }

    /// False where the request was settled meanwhile: then the coroutine must not run on.
    pub(crate) fn hand_to_loop(&self, task: u64) -> bool {
        self.task.store(task, Ordering::Relaxed);
        self.advance(RUNNING, AWAITING)
    }

    /// Notes that only the end of the request matters, not its value.
    pub(crate) fn run_for_effect(&self) {
        self.for_effect.store(true, Ordering::Relaxed);
    }

    /// Answers with a value. Until it is converted the request can still end otherwise.
    pub(crate) fn settle_value(&self, interpreter: &'static Interpreter, value: &Bound<'_, PyAny>) {
        if self.for_effect.load(Ordering::Relaxed) {
            self.settle(Outcome::Done);
        } else if convert::is_plain(value) {
            self.settle(Outcome::Value(interpreter, value));
        } else {
            let send = self.wire.prepare(Outcome::Value(interpreter, value), &|| !self.is_settled());
            if self.win().is_some() {
                send();
            }
        }
    }

    /// Has the caller watched, from the first time on; false where it is dead already.
    pub(crate) fn monitor(self: &Arc<Self>, scheduler: &Arc<Scheduler>) -> bool {
        self.monitored.swap(true, Ordering::Relaxed) || self.wire.monitor(Canceller::new(scheduler, self))
    }

    /// How long ago it was settled.
    pub(crate) fn settled_for(&self, now: Instant) -> Duration {
        let settled = self.submitted + Duration::from_nanos(self.settled_ns.load(Ordering::Relaxed));
        now.saturating_duration_since(settled)
    }

    /// Nanoseconds in the queue and nanoseconds of running so far or until it was settled.
    pub fn times(&self) -> (u64, u64) {
        let started = self.started_ns.load(Ordering::Relaxed);
        let settled = match self.settled_ns.load(Ordering::Relaxed) {
            0 => self.age_ns(),
            settled => settled,
        };
        match started {
            0 => (settled, 0),
            _ => (started, settled.saturating_sub(started)),
        }
    }

    fn advance(&self, from: u8, to: u8) -> bool {
        self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl<W: Wire + ?Sized> Ticket<W> {
    pub fn is_settled(&self) -> bool {
        self.phase.load(Ordering::Acquire) == SETTLED
    }

    /// Sends the answer, unless the request was settled already. Tells where the request was.
    pub fn settle(&self, outcome: Outcome<'_, '_>) -> Option<Phase> {
        let before = self.win()?;
        self.wire.send(outcome);
        Some(before)
    }

    pub fn fail(&self, kind: Kind, message: &str) -> Option<Phase> {
        let before = self.win()?;
        self.interrupted.store(true, Ordering::Release);
        self.wire.send(Outcome::Failed(Fault::new(kind, message)));
        Some(before)
    }

    /// Ends the request without an answer. Tells where it was, unless it was settled already.
    pub(crate) fn discard(&self) -> Option<Phase> {
        let before = self.win()?;
        self.interrupted.store(true, Ordering::Release);
        Some(before)
    }

    /// True where somebody else than the thread that ran it settled it while it ran.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Where the request was, if this is what settles it.
    fn win(&self) -> Option<Phase> {
        let before = phase(self.phase.swap(SETTLED, Ordering::AcqRel));
        if before == Phase::Settled {
            return None;
        }
        self.settled_ns.store(self.age_ns(), Ordering::Relaxed);
        Some(before)
    }

    fn age_ns(&self) -> u64 {
        u64::try_from(self.submitted.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

fn phase(value: u8) -> Phase {
    match value {
        QUEUED => Phase::Queued,
        RUNNING => Phase::Running,
        AWAITING => Phase::Awaiting,
        _ => Phase::Settled,
    }
}

impl<W: Wire + ?Sized> Drop for Ticket<W> {
    /// A request that nobody settled was lost on the way, by a panic: its caller still hears of it.
    fn drop(&mut self) {
        if !self.is_settled() {
            self.fail(Kind::Crashed, "the request was lost inside Py; this is a bug, please report it");
        }
    }
}
