//! Which request runs next, on which thread.
//!
//! Each pool has a bounded queue; the threads of an interpreter serve all of its pools. One thread
//! that is awake is enough while requests are short, since they share the GIL anyway: others are
//! woken when the one that works has been at its request for a millisecond ([`crate::watch`]). It
//! takes several requests at once, and those it did not come to are taken from it then.

mod stuck;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::desk::{Desk, Doing};
use crate::ffi::ThreadId;
use crate::interpreter::Interpreter;
use crate::pool::{PoolState, Refusal, Stage};
use crate::ticket::{Cancel, Phase, Ticket};
use crate::wire::{Inbox, Kind};

/// The thread that booted Python. It is the first to be woken: signals reach it alone.
pub const MAIN: usize = 0;

/// Beyond this many threads at work at once, the GIL goes round more than the work does.
const ENOUGH_AWAKE: usize = 2;

/// Requests that a thread takes at once.
const BATCH: usize = 16;

/// How long the watch sleeps at most.
const LOOK_ANYWAY: Duration = Duration::from_secs(1);

const SPIN: Duration = Duration::from_micros(20);

pub struct Scheduler {
    state: Mutex<State>,
    /// Requests in all queues, for those who look without the lock.
    queued: AtomicUsize,
    watch: Condvar,
    watch_sleeps: AtomicBool,
    /// How often the watch looked.
    ticks: AtomicU64,
    interpreter: OnceLock<&'static Interpreter>,
    may_spin: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub pools: Vec<PoolState>,
    runners: Vec<Runner>,
    parked: Vec<usize>,
    /// The main thread waits for work, or is about to look for some.
    main_is_free: bool,
    awake: usize,
    /// Threads that wait in the middle of a request.
    suspended: usize,
    pub retired: usize,
    /// Places of threads that are no more.
    ended: Vec<usize>,
    next_pool: usize,
    /// The host was told that no thread is free for more.
    crowded: bool,
    awaiting: HashMap<u64, Arc<Ticket>>,
}

#[derive(Default)]
struct Runner {
    desk: Arc<Desk>,
    /// Its place was given to another; it ends when it comes back.
    retired: bool,
}

/// What is to be done once the lock is gone.
#[must_use]
pub(crate) enum Wake {
    Nobody,
    Parked(Arc<Desk>),
    Spawn(usize),
}

impl State {
    /// A thread for work that waits, if none is about to look for some.
    pub fn wake_for_work(&mut self) -> Wake {
        if self.awake > 0 || !self.has_work() {
            return Wake::Nobody;
        }
        let main = self.parked.iter().position(|runner| *runner == MAIN);
        let runner = match main {
            Some(position) => Some(self.parked.swap_remove(position)),
            None => self.parked.pop(),
        };
        if let Some(runner) = runner {
            self.awake += 1;
            return Wake::Parked(self.runners[runner].desk.clone());
        }
        if !self.may_spawn() {
            return Wake::Nobody;
        }
        self.awake += 1;
        Wake::Spawn(self.add_runner())
    }

    fn may_spawn(&self) -> bool {
        let places: usize = self.pools.iter().map(PoolState::places).sum();
        self.threads() - self.suspended.min(self.threads()) <= places && !self.is_worn_out()
    }

    /// Whether a runner that is awake is to take more work. What runs on the main thread can be
    /// interrupted in the middle of a system call, so others leave the work to it where it is free.
    fn may_go_on(&self, runner: usize) -> bool {
        let leaves_it_to_main = runner != MAIN && self.main_is_free;
        !self.runners[runner].retired && !leaves_it_to_main && self.awake <= ENOUGH_AWAKE
    }

    fn add_runner(&mut self) -> usize {
        match self.ended.pop() {
            Some(index) => {
                self.runners[index] = Runner::default();
                index
            }
            None => {
                self.runners.push(Runner::default());
                self.runners.len() - 1
            }
        }
    }

    /// Threads that serve.
    pub fn threads(&self) -> usize {
        self.runners.len() - self.ended.len() - self.retired
    }

    /// What the threads that serve are at.
    pub fn doing(&self) -> impl Iterator<Item = MutexGuard<'_, Doing>> {
        self.runners.iter().filter(|runner| !runner.retired).map(|runner| runner.desk.lock())
    }

    pub fn awaiting(&self) -> impl Iterator<Item = &Arc<Ticket>> {
        self.awaiting.values()
    }

    /// True while there is anything the watch has to look at.
    fn is_busy(&self) -> bool {
        self.runners.iter().any(|runner| runner.desk.lock().current.is_some())
            || !self.awaiting.is_empty()
            || self.pools.iter().any(|pool| pool.start.is_some() || !pool.queue.is_empty())
    }

    fn has_work(&self) -> bool {
        self.pools.iter().any(PoolState::has_work)
    }

    /// Puts a batch on a runner's desk, of the pools in turn; false where there is none.
    fn deal(&mut self, runner: usize) -> bool {
        let count = self.pools.len();
        let mut pools = (0..count).map(|offset| (self.next_pool + offset) % count);
        let Some(index) = pools.find(|index| self.pools[*index].has_work()) else {
            return false;
        };
        self.next_pool = (index + 1) % count;
        let pool = &mut self.pools[index];
        let mut doing = self.runners[runner].desk.lock();
        match pool.start.take() {
            Some(start) => doing.batch.push_back(start),
            None => doing.batch.extend(std::iter::from_fn(|| pool.queue.pop()).take(BATCH)),
        }
        doing.pool = Some(index);
        pool.running += 1;
        pool.claimed += doing.batch.len();
        true
    }

    /// Books what a runner did, and tells whether somebody had taken over from it meanwhile.
    fn book(&mut self, runner: usize) -> bool {
        let Runner { desk, retired } = &self.runners[runner];
        let mut doing = desk.lock();
        let blocked = std::mem::take(&mut doing.blocked);
        self.awake += usize::from(blocked);
        let done = std::mem::take(&mut doing.done);
        if let Some(pool) = doing.pool.take() {
            let pool = &mut self.pools[pool];
            if *retired {
                // Its place was given away already.
                pool.retired -= 1;
            } else {
                pool.running -= 1;
                pool.claimed -= done;
            }
        }
        blocked
    }

    /// Takes a runner's place, and what it did not come to; tells in which pool.
    fn suspend(&mut self, runner: usize) -> Option<usize> {
        let State { runners, pools, awake, suspended, .. } = self;
        let Runner { desk, retired } = &runners[runner];
        let mut doing = desk.lock();
        // One that was retired has no place.
        let pool = doing.pool.filter(|_| !retired)?;
        if !std::mem::replace(&mut doing.blocked, true) {
            *awake -= 1;
            pools[pool].take_back(doing.batch.drain(..));
        }
        pools[pool].running -= 1;
        doing.suspended = true;
        *suspended += 1;
        Some(pool)
    }

    /// Whether all threads that a pool may have are at requests that take long.
    fn is_crowded(&self) -> bool {
        let full = |pool: &PoolState| pool.stage == Stage::Open && pool.running >= pool.limits.size;
        self.awake == 0 && self.pools.iter().any(full)
    }
}

impl Scheduler {
    pub(crate) fn new() -> Arc<Self> {
        let mut state = State::default();
        state.add_runner();
        state.awake = 1;
        Arc::new(Scheduler {
            state: Mutex::new(state),
            queued: AtomicUsize::new(0),
            watch: Condvar::new(),
            watch_sleeps: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            interpreter: OnceLock::new(),
            may_spin: std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1),
        })
    }

    pub(crate) fn attach(&self, interpreter: &'static Interpreter) {
        let _ = self.interpreter.set(interpreter);
        if let Some(inbox) = interpreter.host.inbox() {
            self.desk(MAIN).parker.wait_at(inbox);
        }
    }

    fn inbox(&self) -> Option<&'static dyn Inbox> {
        self.interpreter().and_then(|interpreter| interpreter.host.inbox())
    }

    /// The inbox, for the runner that looks after it.
    pub(crate) fn inbox_of(&self, runner: usize) -> Option<&'static dyn Inbox> {
        if runner == MAIN { self.inbox() } else { None }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn interpreter(&self) -> Option<&'static Interpreter> {
        self.interpreter.get().copied()
    }

    pub(crate) fn wake(&self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::Parked(desk) => desk.parker.wake(),
            Wake::Spawn(runner) => {
                crate::runner::spawn(self.interpreter().expect("booted before there is work"), runner)
            }
        }
    }

    /// Has the watch look at what is pending from now on.
    pub(crate) fn rouse_watch(&self) {
        if self.watch_sleeps.load(Ordering::SeqCst) {
            let state = self.lock();
            self.wake_watch();
            drop(state);
            self.watch.notify_one();
        }
    }

    fn wake_watch(&self) {
        self.pass_tick();
        self.watch_sleeps.store(false, Ordering::SeqCst);
    }

    /// Counts the watch's ticks; whenever it is awake, the last one was a millisecond ago or so.
    #[cfg(not(feature = "limited"))]
    pub(crate) fn tick(&self) -> u64 {
        self.ticks.load(Ordering::SeqCst)
    }

    pub(crate) fn pass_tick(&self) {
        self.ticks.fetch_add(1, Ordering::SeqCst);
    }

    /// Where the watch waits until there is something to look at.
    pub(crate) fn sleep_watch(&self, is_busy: impl Fn() -> bool) {
        let state = self.lock();
        self.watch_sleeps.store(true, Ordering::SeqCst);
        // Whoever began before the flag was up did not see it.
        if state.is_busy() || is_busy() {
            self.watch_sleeps.store(false, Ordering::SeqCst);
            return;
        }
        let asleep = |_: &mut State| self.watch_sleeps.load(Ordering::SeqCst);
        // A caller inline does not pay for the order in which the two of them see what the other did.
        let woken = self.watch.wait_timeout_while(state, LOOK_ANYWAY, asleep);
        drop(woken.unwrap_or_else(PoisonError::into_inner));
        self.wake_watch();
    }

    /// Takes a request, which `put` puts where it belongs.
    pub(crate) fn take(
        &self,
        ticket: Arc<Ticket>,
        put: impl FnOnce(&mut State, Arc<Ticket>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut state = self.lock();
        put(&mut state, ticket)?;
        self.queued.fetch_add(1, Ordering::Relaxed);
        let wake = state.wake_for_work();
        drop(state);
        self.wake(wake);
        self.rouse_watch();
        Ok(())
    }

    // --- for the runners ---------------------------------------------------------------------

    pub(crate) fn desk(&self, runner: usize) -> Arc<Desk> {
        self.lock().runners[runner].desk.clone()
    }

    /// Books what a runner did, and gives it more to do; false where there is nothing.
    pub(crate) fn refill(&self, runner: usize) -> bool {
        let mut state = self.lock();
        let is_back = state.book(runner);
        state.main_is_free &= runner != MAIN;
        let dealt = state.may_go_on(runner) && state.deal(runner);
        self.count(&state);
        if is_back {
            self.tell_if_free(&mut state);
        }
        dealt
    }

    /// Tells the host that there is a thread for more, where it was told that there is none.
    fn tell_if_free(&self, state: &mut State) {
        if std::mem::take(&mut state.crowded)
            && let Some(inbox) = self.inbox()
        {
            inbox.crowded(false);
        }
    }

    /// Puts a request before what a runner has to do.
    pub(crate) fn hurry(&self, runner: usize, ticket: Arc<Ticket>) {
        let mut state = self.lock();
        let State { runners, pools, .. } = &mut *state;
        let mut doing = runners[runner].desk.lock();
        let pool = &mut pools[ticket.pool()];
        pool.calls += 1;
        if doing.pool == Some(ticket.pool()) && !doing.blocked {
            pool.claimed += 1;
            doing.batch.push_front(ticket);
        } else {
            pool.queue.push(ticket);
        }
        drop(doing);
        self.count(&state);
        drop(state);
        self.rouse_watch();
    }

    fn count(&self, state: &State) {
        self.queued.store(state.pools.iter().map(|pool| pool.queue.len()).sum(), Ordering::Relaxed);
    }

    /// Waits until there may be work; false where the runner is to end.
    pub(crate) fn wait(&self, runner: usize) -> bool {
        let spins = {
            let mut state = self.lock();
            state.main_is_free |= runner == MAIN;
            runner == MAIN || !state.main_is_free
        };
        if spins && self.inbox().is_none() {
            self.spin();
        }
        let (desk, wake) = {
            let mut state = self.lock();
            if state.runners[runner].retired {
                state.retired -= 1;
                if runner != MAIN {
                    state.awake -= 1;
                    state.ended.push(runner);
                    return false;
                }
                // The main thread never ends: it is back from wherever it was.
                state.runners[runner].retired = false;
            }
            if state.has_work() && state.may_go_on(runner) {
                return true;
            }
            state.awake -= 1;
            let wake = state.wake_for_work();
            state.parked.push(runner);
            (state.runners[runner].desk.clone(), wake)
        };
        self.wake(wake);
        desk.parker.wait();
        true
    }

    fn spin(&self) {
        if !self.may_spin {
            return;
        }
        let begin = Instant::now();
        while begin.elapsed() < SPIN {
            for _ in 0..32 {
                if self.queued.load(Ordering::Relaxed) > 0 {
                    return;
                }
                std::hint::spin_loop();
            }
            // The thread that is waited for may be waiting for this core.
            std::thread::yield_now();
        }
    }

    /// The thread could not be started: its work is left to others.
    pub(crate) fn not_spawned(&self, runner: usize) {
        let mut state = self.lock();
        state.awake -= 1;
        state.ended.push(runner);
    }

    // --- for threads that wait for an answer of the BEAM ------------------------------------------

    /// What a runner is at.
    pub(crate) fn ticket_of(&self, runner: usize) -> Option<Arc<Ticket>> {
        self.lock().runners[runner].desk.lock().current.clone()
    }

    /// The runner is about to wait in the middle of a request: others take its place until it is back.
    pub(crate) fn suspend(self: &Arc<Self>, runner: Option<usize>) -> Suspended {
        let mut place = None;
        if let Some(runner) = runner {
            let wake = {
                let mut state = self.lock();
                place = state.suspend(runner).map(|pool| (runner, pool));
                self.count(&state);
                self.tell_if_free(&mut state);
                state.wake_for_work()
            };
            self.wake(wake);
        }
        Suspended { scheduler: Arc::clone(self), place }
    }

    // --- for coroutines ----------------------------------------------------------------------

    pub(crate) fn awaits(&self, ticket: &Arc<Ticket>) {
        let mut state = self.lock();
        state.pools[ticket.pool()].awaiting += 1;
        state.awaiting.insert(ticket.task(), ticket.clone());
    }

    pub(crate) fn awaited(&self, ticket: &Arc<Ticket>) {
        let mut state = self.lock();
        if state.awaiting.remove(&ticket.task()).is_some() {
            state.pools[ticket.pool()].awaiting -= 1;
        }
    }

    // --- for ending requests early -------------------------------------------------------------

    pub(crate) fn cancel(&self, ticket: &Arc<Ticket>) -> Cancel {
        match ticket.discard() {
            Some(phase) => {
                self.interrupt(ticket, phase);
                Cancel::Cancelled
            }
            None => Cancel::Replied,
        }
    }

    pub(crate) fn fail(&self, ticket: &Arc<Ticket>, kind: Kind, message: &str) {
        if let Some(phase) = ticket.fail(kind, message) {
            self.interrupt(ticket, phase);
        }
    }

    /// Sees to it that a request that was settled in `phase` does not run, or not on.
    fn interrupt(&self, ticket: &Arc<Ticket>, phase: Phase) {
        if phase == Phase::Queued {
            self.lock().pools[ticket.pool()].queue.forget(ticket);
        } else if let Some(interpreter) = self.interpreter() {
            interpreter.interrupt(ticket, phase);
        }
    }

    // --- for interrupting --------------------------------------------------------------------

    pub(crate) fn runs_on_main(&self, ticket: &Arc<Ticket>) -> bool {
        self.lock().runners[MAIN].desk.is_at(ticket)
    }

    /// The request that the main thread is at, as a number, where somebody else settled that.
    pub(crate) fn interrupted_on_main(&self) -> Option<u64> {
        // One that was handed to the event loop is nothing that runs here any more.
        let interrupted = |current: &&Arc<Ticket>| current.was_interrupted() && current.task() == 0;
        self.lock().runners[MAIN].desk.lock().current.as_ref().filter(interrupted).map(Ticket::number)
    }

    pub(crate) fn main_is_retired(&self) -> bool {
        self.lock().runners[MAIN].retired
    }

    pub(crate) fn thread_of(&self, ticket: &Arc<Ticket>) -> Option<ThreadId> {
        let state = self.lock();
        state.runners.iter().find(|runner| runner.desk.is_at(ticket)).and_then(|runner| runner.desk.thread())
    }

    /// What is in progress in a pool: what it is, its age in milliseconds, the thread it is on and the
    /// key of its task, each 0 where there is none. The oldest come first.
    pub(crate) fn calls(&self, pool: usize) -> Vec<(String, u64, u64, u64)> {
        let now = Instant::now();
        let mut calls: Vec<(Arc<Ticket>, Option<ThreadId>)> = Vec::new();
        {
            let state = self.lock();
            let mine = |ticket: &&Arc<Ticket>| ticket.pool() == pool && !ticket.is_answered();
            calls.extend(state.awaiting().filter(mine).map(|ticket| (ticket.clone(), None)));
            for runner in state.runners.iter().filter(|runner| !runner.retired) {
                let doing = runner.desk.lock();
                let current = doing.current.iter().filter(mine).filter(|ticket| ticket.task() == 0);
                calls.extend(current.map(|ticket| (ticket.clone(), runner.desk.thread())));
            }
        }
        calls.sort_by_key(|(ticket, _)| ticket.started());
        let call = |(ticket, thread): (Arc<Ticket>, Option<ThreadId>)| {
            let age = ticket.started().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            let thread = thread.map_or(0, |thread| thread.number() as u64);
            (ticket.wire().subject(), age.as_millis() as u64, thread, ticket.task())
        };
        calls.into_iter().map(call).collect()
    }

    // --- for the watch -----------------------------------------------------------------------

    /// Lets another thread take over from those that have been at one request for `limit`, and takes
    /// from them what they did not come to.
    pub(crate) fn relieve(&self, now: Instant, limit: Duration) {
        let wake = {
            let mut state = self.lock();
            let State { runners, pools, awake, .. } = &mut *state;
            for runner in runners {
                let mut doing = runner.desk.lock();
                if doing.blocked || !doing.is_late(now, limit) {
                    continue;
                }
                doing.blocked = true;
                *awake -= 1;
                if let Some(pool) = doing.pool {
                    pools[pool].take_back(doing.batch.drain(..));
                }
            }
            self.count(&state);
            state.wake_for_work()
        };
        self.wake(wake);
    }

    /// Gives back what waits behind requests that take long, where the host can have it run elsewhere.
    pub(crate) fn give_back(&self, inbox: &dyn Inbox) {
        if !self.lock().runners[MAIN].desk.lock().blocked {
            return;
        }
        // The main thread reads what comes, but for now.
        inbox.look();
        let tickets: Vec<_> = {
            let mut state = self.lock();
            if !state.is_crowded() {
                return;
            }
            // With the lock held, so that it is told in the order in which it happens.
            if !std::mem::replace(&mut state.crowded, true) {
                inbox.crowded(true);
            }
            let tickets = state.pools.iter_mut().flat_map(|pool| pool.queue.drain()).collect();
            self.count(&state);
            tickets
        };
        for ticket in tickets {
            if ticket.discard().is_some() {
                ticket.wire().give_back();
            }
        }
    }

    /// What has been pending for `age`, wherever it is.
    pub(crate) fn pending(&self, now: Instant, age: Duration) -> Vec<Arc<Ticket>> {
        let state = self.lock();
        let old = |ticket: &&Arc<Ticket>| {
            !ticket.is_settled() && now.saturating_duration_since(ticket.submitted()) >= age
        };
        let queued = state.pools.iter().flat_map(|pool| pool.start.iter().chain(pool.queue.iter()));
        let mut pending: Vec<_> = queued.chain(state.awaiting()).filter(old).cloned().collect();
        for runner in &state.runners {
            pending.extend(runner.desk.lock().tickets().filter(old).cloned());
        }
        pending
    }

    /// Tasks that were cancelled and have not ended within the grace of their pool: something blocks
    /// the event loop.
    pub(crate) fn stuck_tasks(&self, now: Instant) -> Vec<u64> {
        let state = self.lock();
        let grace = |ticket: &Ticket| state.pools[ticket.pool()].limits.grace;
        let stuck = |ticket: &&Arc<Ticket>| ticket.is_settled() && ticket.settled_for(now) >= grace(ticket);
        state.awaiting().filter(stuck).map(|ticket| ticket.task()).collect()
    }

    /// Gives up all tasks of a loop that is given up.
    pub(crate) fn take_awaiting(&self) -> Vec<Arc<Ticket>> {
        let mut state = self.lock();
        let tickets: Vec<_> = state.awaiting.drain().map(|(_, ticket)| ticket).collect();
        for ticket in &tickets {
            state.pools[ticket.pool()].awaiting -= 1;
        }
        tickets
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.lock().is_busy()
    }

    pub(crate) fn is_starting(&self, pool: usize) -> bool {
        self.lock().pools[pool].stage == Stage::Starting
    }
}

/// A runner that waits in the middle of a request, until this is dropped.
pub(crate) struct Suspended {
    scheduler: Arc<Scheduler>,
    /// Which runner it is, and in which pool it has no place meanwhile.
    place: Option<(usize, usize)>,
}

impl Drop for Suspended {
    /// It goes on at once, even where its place was taken: that is one more then, for a while.
    fn drop(&mut self) {
        if let Some((runner, pool)) = self.place {
            let mut state = self.scheduler.lock();
            state.pools[pool].running += 1;
            state.suspended -= 1;
            state.runners[runner].desk.lock().suspended = false;
        }
    }
}

/// Ends one request, for whoever hears that its caller is dead.
pub struct Canceller {
    scheduler: Arc<Scheduler>,
    ticket: Weak<Ticket>,
}

impl Canceller {
    pub(crate) fn new(scheduler: &Arc<Scheduler>, ticket: &Arc<Ticket>) -> Self {
        Canceller { scheduler: scheduler.clone(), ticket: Arc::downgrade(ticket) }
    }

    pub fn cancel(&self) {
        if let Some(ticket) = self.ticket.upgrade() {
            self.scheduler.cancel(&ticket);
        }
    }
}
