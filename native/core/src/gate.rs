//! Who may be attached to an interpreter: its own threads, which may take as long as they like, or
//! one caller inline, on a thread that must never wait for the GIL.
//!
//! Threads of ours enter before they attach and leave when they are detached and idle. A caller gets
//! in only when none of them is inside, and they wait while one is. Threads that are not ours do not
//! ask: while there are any, the gate is closed.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::ffi::ThreadStates;
use crate::stopwatch::Lap;

/// Set while a caller is inside; the other bits count the threads of ours that are, or want to be.
const INLINE: usize = 1 << (usize::BITS - 1);

/// How long a caller waits for threads of ours that make progress, and for one that makes none.
const PATIENCE: Duration = Duration::from_micros(50);
const STANDSTILL: Duration = Duration::from_micros(5);

/// A caller that waits looks again after so many turns of a loop, then after twice as many, so often.
const SHORTEST: u32 = 512;
const LONGER: u32 = 2;

/// A caller that takes longer holds up its scheduler.
pub const OVERRUN: Duration = Duration::from_millis(1);

/// A caller that takes longer was not just kept waiting for a core, as it may be with a shorter time.
const SURELY_OVERRUN: Duration = Duration::from_millis(10);

/// How long a function that took too long inline takes the queue.
const BANNED: Duration = Duration::from_secs(10);

/// A function that took too long is suspected for so long: so many of its calls are timed closely, and
/// it is banned when one of them takes too long again.
const SUSPECTED: Duration = Duration::from_millis(100);
const SUSPICIOUS_CALLS: u32 = 16;

/// Why a call cannot run inline now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Python is at work.
    Busy,
    /// There are threads in Python that are not Py's: they may take the GIL at any time.
    ForeignThreads,
    /// This function took too long lately.
    Overran,
    /// This Python cannot be told how large a stack is.
    Unsupported,
    /// The pool does not serve yet, or no more.
    NotServing,
}

pub struct Gate {
    state: AtomicUsize,
    turn: Mutex<()>,
    left: Condvar,
    threads: ThreadStates,
    /// The newest thread state when all of them were ours; zero where not all were.
    newest: AtomicUsize,
    /// Thread states that are ours.
    ours: AtomicUsize,
    /// Requests that threads of ours finished.
    progress: AtomicU64,
    /// Functions that took too long lately.
    slow: Mutex<HashMap<u64, Slow>>,
    /// How many of those there are.
    slow_count: AtomicUsize,
    supported: bool,
}

thread_local! {
    /// Whether this thread is one of ours and inside.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Closed {
    /// The name in `inline: {:closed, ...}`.
    pub fn name(self) -> &'static str {
        match self {
            Closed::Busy => "busy",
            Closed::ForeignThreads => "foreign_threads",
            Closed::Overran => "overrun",
            Closed::Unsupported => "unsupported",
            Closed::NotServing => "not_serving",
        }
    }
}

struct Slow {
    subject: String,
    until: Instant,
    banned: bool,
    /// It took too long, and that is not only the most that it may have taken.
    is_certain: bool,
    /// Calls since it took too long.
    calls: u32,
}

impl Gate {
    /// The calling thread is inside.
    pub fn new(py: Python<'_>) -> Self {
        INSIDE.set(true);
        Gate {
            state: AtomicUsize::new(1),
            turn: Mutex::new(()),
            left: Condvar::new(),
            threads: ThreadStates::of(py),
            newest: AtomicUsize::new(0),
            ours: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            slow: Mutex::default(),
            slow_count: AtomicUsize::new(0),
            supported: crate::ffi::can_switch_stacks(py),
        }
    }

    // --- for threads of ours -------------------------------------------------------------------

    /// Before a thread of ours attaches, or goes on when it was outside.
    pub fn enter(&self) {
        if INSIDE.replace(true) || self.state.fetch_add(1, Ordering::SeqCst) & INLINE == 0 {
            return;
        }
        let mut turn = lock(&self.turn);
        while self.state.load(Ordering::SeqCst) & INLINE != 0 {
            // Whoever is inside notifies; the time is for a machine whose cores are all taken.
            turn = self
                .left
                .wait_timeout(turn, OVERRUN)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(turn, _)| turn);
        }
    }

    /// When a thread of ours is detached, or about to be and idle.
    pub fn leave(&self) {
        if INSIDE.replace(false) {
            self.state.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Notes the thread state of the calling thread as ours.
    pub fn adopt(&self, _: Python<'_>) {
        self.ours.fetch_add(1, Ordering::SeqCst);
    }

    /// The calling thread is about to give its thread state up.
    pub fn disown(&self, _: Python<'_>) {
        self.ours.fetch_sub(1, Ordering::SeqCst);
    }

    /// Is the calling thread one of ours?
    pub fn is_inside(&self) -> bool {
        INSIDE.get()
    }

    /// Is the calling thread a scheduler of the VM, at a call inline?
    pub fn is_caller_inline(&self) -> bool {
        crate::inline::is_here()
    }

    pub fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks whether all thread states are ours. To be called before a thread of ours leaves.
    pub fn look(&self, py: Python<'_>) {
        let all_ours = self.threads.count(py) == self.ours.load(Ordering::SeqCst);
        let newest = if all_ours { self.threads.newest() } else { 0 };
        self.newest.store(newest, Ordering::SeqCst);
    }

    // --- for callers inline --------------------------------------------------------------------

    /// Lets the caller in, until [`Gate::let_out`], and tells whether the call is to be timed closely.
    /// `function` tells functions apart.
    pub fn let_in(&self, function: impl Fn() -> u64) -> Result<bool, Closed> {
        self.permits()?;
        let closely = self.slow_count.load(Ordering::Relaxed) > 0 && self.is_suspected(function())?;
        self.squeeze_in()?;
        // Looked at again: whoever was inside may have started a thread.
        self.permits().inspect_err(|_| self.let_out())?;
        Ok(closely)
    }

    pub fn let_out(&self) {
        if self.state.fetch_and(!INLINE, Ordering::SeqCst) != INLINE {
            drop(lock(&self.turn));
            self.left.notify_all();
        }
    }

    /// Why the gate is closed now, if it is.
    pub fn closed(&self) -> Option<Closed> {
        let busy = self.state.load(Ordering::SeqCst) & !INLINE != 0;
        self.permits().err().or(busy.then_some(Closed::Busy))
    }

    /// A call of this function took too long: where it was not by chance, it takes the queue for a while.
    pub fn overran(&self, function: u64, subject: String, lap: Lap) {
        let mut slow = lock(&self.slow);
        let before = slow.get(&function);
        let again = before.is_some_and(|before| before.is_certain && before.calls <= SUSPICIOUS_CALLS);
        // It may have been inside when another call of it had it banned.
        let banned = before.is_some_and(|before| before.banned)
            || lap.is_certain && (again || lap.time >= SURELY_OVERRUN);
        let until = Instant::now() + if banned { BANNED } else { SUSPECTED };
        slow.insert(function, Slow { subject, until, banned, is_certain: lap.is_certain, calls: 0 });
        self.slow_count.store(slow.len(), Ordering::Relaxed);
    }

    /// The functions that take the queue for a while.
    pub fn banned(&self) -> Vec<String> {
        lock(&self.slow).values().filter(|slow| slow.banned).map(|slow| slow.subject.clone()).collect()
    }

    /// Lets functions in again whose time is over.
    pub fn pardon(&self, now: Instant) {
        if self.slow_count.load(Ordering::Relaxed) > 0 {
            let mut slow = lock(&self.slow);
            slow.retain(|_, slow| slow.until > now);
            self.slow_count.store(slow.len(), Ordering::Relaxed);
        }
    }

    /// Whether thread states were made since the last look.
    pub fn has_new_threads(&self) -> bool {
        self.newest.load(Ordering::SeqCst) != self.threads.newest()
    }

    fn permits(&self) -> Result<(), Closed> {
        if !self.supported {
            Err(Closed::Unsupported)
        } else if self.has_new_threads() {
            Err(Closed::ForeignThreads)
        } else {
            Ok(())
        }
    }

    fn is_suspected(&self, function: u64) -> Result<bool, Closed> {
        let mut slow = lock(&self.slow);
        let Some(slow) = slow.get_mut(&function) else { return Ok(false) };
        slow.calls += 1;
        if slow.banned { Err(Closed::Overran) } else { Ok(slow.calls <= SUSPICIOUS_CALLS) }
    }

    /// Waits for another caller, who is short; and for threads of ours while they make progress. Once
    /// short calls have gone to the queue, this is what brings them back: it runs empty meanwhile.
    fn squeeze_in(&self) -> Result<(), Closed> {
        let mut waiting = None;
        for round in 0_u32.. {
            let state = self.state.load(Ordering::SeqCst);
            if state == 0
                && self.state.compare_exchange(0, INLINE, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            {
                return Ok(());
            }
            let progress = self.progress.load(Ordering::Relaxed);
            let waiting = waiting.get_or_insert_with(|| Waiting::new(progress));
            if !waiting.is_worth_it(progress, state & INLINE != 0) {
                return Err(Closed::Busy);
            }
            // Not to look is what helps who is inside: in a few microseconds it makes several calls,
            // with all of Python in the caches of one core.
            for _ in 0..SHORTEST << round.min(LONGER) {
                std::hint::spin_loop();
            }
            if round >= LONGER {
                // Who is inside may be waiting for this core.
                std::thread::yield_now();
            }
        }
        unreachable!("it is worth it for a while only")
    }
}

struct Waiting {
    begin: Instant,
    progress: u64,
    progressed: Instant,
}

impl Waiting {
    fn new(progress: u64) -> Self {
        let now = Instant::now();
        Waiting { begin: now, progress, progressed: now }
    }

    fn is_worth_it(&mut self, progress: u64, for_caller: bool) -> bool {
        let now = Instant::now();
        if for_caller {
            return now - self.begin < OVERRUN;
        }
        if self.progress != progress {
            self.progress = progress;
            self.progressed = now;
        }
        now - self.begin < PATIENCE && now - self.progressed < STANDSTILL
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
