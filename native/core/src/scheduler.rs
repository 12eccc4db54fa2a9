//! Which request runs next, on which thread.
//!
//! Each pool has a bounded queue; the threads of an interpreter serve all of its pools. One thread
//! that is awake is enough while requests are short, since they share the GIL anyway: others are
//! woken when the one that works has been at its request for a millisecond ([`crate::watch`]).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::ffi::ThreadId;
use crate::interpreter::Interpreter;
use crate::ticket::{Cancel, Phase, Ticket};
use crate::wire::{Job, Kind};

/// The thread that booted Python. It is the first to be woken: signals reach it alone.
pub const MAIN: usize = 0;

/// Threads that sit in C code beyond their time, in the whole interpreter.
const MAX_RETIRED: usize = 16;

/// Beyond this many threads at work at once, the GIL goes round more than the work does.
const ENOUGH_AWAKE: usize = 2;

const SPIN: Duration = Duration::from_micros(20);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests in progress.
    pub size: usize,
    /// Requests that wait, and coroutines in flight: so many beyond `size` are taken.
    pub max_queue: usize,
    pub grace: Duration,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Overloaded,
    Stopped,
}

#[derive(Clone, Copy, Debug)]
pub struct PoolInfo {
    pub limits: Limits,
    pub queued: usize,
    pub running: usize,
    pub awaiting: usize,
    pub threads: usize,
    pub retired: usize,
    pub calls: u64,
}

pub struct Scheduler {
    state: Mutex<State>,
    /// Requests in all queues, for those who look without the lock.
    queued: AtomicUsize,
    pub(crate) watch: Condvar,
    interpreter: OnceLock<&'static Interpreter>,
    may_spin: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pools: Vec<PoolState>,
    runners: Vec<Runner>,
    parked: Vec<usize>,
    awake: usize,
    retired: usize,
    /// Places of threads that are no more.
    ended: Vec<usize>,
    next_pool: usize,
    awaiting: HashMap<u64, Arc<Ticket>>,
    pub(crate) watch_sleeps: bool,
}

#[derive(PartialEq, Eq)]
enum Stage {
    /// Its `init` has not ended: requests wait.
    Starting,
    Open,
    Stopped,
}

struct PoolState {
    stage: Stage,
    limits: Limits,
    start: Option<Job>,
    queue: VecDeque<Job>,
    running: usize,
    awaiting: usize,
    /// Requests that were settled, whose threads do not come back and cannot be retired either.
    stuck: usize,
    calls: Arc<AtomicU64>,
}

struct Runner {
    parker: Arc<Parker>,
    id: Option<ThreadId>,
    current: Option<Current>,
    retired: bool,
}

struct Current {
    ticket: Arc<Ticket>,
    since: Instant,
    blocked: bool,
}

/// Where a thread waits to be woken.
#[derive(Default)]
pub(crate) struct Parker {
    thread: OnceLock<Thread>,
    woken: AtomicBool,
}

impl Parker {
    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        // A thread that has not come this far looks at the flag when it does.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn wait(&self) {
        self.thread.get_or_init(std::thread::current);
        while !self.woken.swap(false, Ordering::Acquire) {
            std::thread::park();
        }
    }
}

/// What is to be done once the lock is gone.
#[must_use]
pub(crate) enum Wake {
    Nobody,
    Parked(Arc<Parker>),
    Spawn(usize),
}

impl State {
    /// A thread for work that waits, if none is about to look for some.
    fn wake_for_work(&mut self) -> Wake {
        if self.awake > 0 || !self.has_work() {
            return Wake::Nobody;
        }
        self.wake_one()
    }

    fn wake_one(&mut self) -> Wake {
        let main = self.parked.iter().position(|runner| *runner == MAIN);
        let runner = match main {
            Some(position) => Some(self.parked.swap_remove(position)),
            None => self.parked.pop(),
        };
        if let Some(runner) = runner {
            self.awake += 1;
            return Wake::Parked(self.runners[runner].parker.clone());
        }
        let wanted: usize = self.pools.iter().map(|pool| pool.limits.size).sum();
        if self.threads() > wanted {
            return Wake::Nobody;
        }
        self.awake += 1;
        Wake::Spawn(self.add_runner())
    }

    /// Whether a runner that is awake is to take more work. What runs on the main thread can be
    /// interrupted in the middle of a system call, so others leave the work to it where it is free.
    fn may_go_on(&self, runner: usize) -> bool {
        let main_is_free = runner != MAIN && self.parked.contains(&MAIN);
        !self.runners[runner].retired && !main_is_free && self.awake <= ENOUGH_AWAKE
    }

    fn add_runner(&mut self) -> usize {
        let runner = Runner { parker: Arc::default(), id: None, current: None, retired: false };
        match self.ended.pop() {
            Some(index) => {
                self.runners[index] = runner;
                index
            }
            None => {
                self.runners.push(runner);
                self.runners.len() - 1
            }
        }
    }

    /// Threads that serve.
    fn threads(&self) -> usize {
        self.runners.len() - self.ended.len() - self.retired
    }

    /// Whether a pool takes no more. What is queued while there is a place for it to run does not wait.
    fn is_full(&self, pool: usize) -> bool {
        let PoolState { limits, running, queue, awaiting, stuck, .. } = &self.pools[pool];
        let limit = limits.size + limits.max_queue;
        let taken = running + queue.len() + awaiting;
        *stuck >= limits.size.max(1) || (taken >= limit && taken - self.answered(pool) >= limit)
    }

    /// Requests that have their answer, and whose threads are about to see to the next. Who got the
    /// answer and asks again must not find the pool full.
    fn answered(&self, pool: usize) -> usize {
        let current =
            self.runners.iter().filter(|runner| !runner.retired).filter_map(|runner| runner.current.as_ref());
        current.filter(|current| current.ticket.pool() == pool && current.ticket.is_answered()).count()
    }

    fn has_work(&self) -> bool {
        self.pools.iter().any(PoolState::has_work)
    }

    fn take_job(&mut self) -> Option<Job> {
        let count = self.pools.len();
        for offset in 0..count {
            let index = (self.next_pool + offset) % count;
            let pool = &mut self.pools[index];
            if pool.has_work() {
                pool.running += 1;
                self.next_pool = (index + 1) % count;
                return pool.start.take().or_else(|| pool.queue.pop_front());
            }
        }
        None
    }

    /// Ends what the runner was at.
    fn finish(&mut self, runner: usize) {
        let Some(current) = self.runners[runner].current.take() else {
            return;
        };
        if current.blocked {
            self.awake += 1;
        }
        if self.runners[runner].retired {
            // Its place in the pool was given away when it was retired.
            return;
        }
        let pool = &mut self.pools[current.ticket.pool()];
        pool.running -= 1;
    }
}

impl PoolState {
    fn has_work(&self) -> bool {
        match self.stage {
            Stage::Starting => self.start.is_some(),
            Stage::Open => !self.queue.is_empty() && self.running < self.limits.size,
            Stage::Stopped => false,
        }
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
            interpreter: OnceLock::new(),
            may_spin: std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1),
        })
    }

    pub(crate) fn attach(&self, interpreter: &'static Interpreter) {
        let _ = self.interpreter.set(interpreter);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn interpreter(&self) -> Option<&'static Interpreter> {
        self.interpreter.get().copied()
    }

    fn wake(&self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::Parked(parker) => parker.wake(),
            Wake::Spawn(runner) => {
                crate::runner::spawn(self.interpreter().expect("booted before there is work"), runner)
            }
        }
    }

    /// Has the watch look at what is pending from now on.
    fn rouse_watch(&self, state: &mut State) {
        if std::mem::take(&mut state.watch_sleeps) {
            self.watch.notify_one();
        }
    }

    // --- for the runners ---------------------------------------------------------------------

    pub(crate) fn introduce(&self, runner: usize, id: ThreadId) {
        self.lock().runners[runner].id = Some(id);
    }

    /// Ends the request that the runner was at, and gives it the next one.
    pub(crate) fn next(&self, runner: usize) -> Option<Job> {
        let mut state = self.lock();
        state.finish(runner);
        if !state.may_go_on(runner) {
            return None;
        }
        let job = state.take_job()?;
        let current = Current { ticket: job.ticket.clone(), since: Instant::now(), blocked: false };
        state.runners[runner].current = Some(current);
        self.queued.store(state.pools.iter().map(|pool| pool.queue.len()).sum(), Ordering::Relaxed);
        Some(job)
    }

    /// Waits until there may be work; false where the runner is to end.
    pub(crate) fn wait(&self, runner: usize) -> bool {
        if runner == MAIN || !self.lock().parked.contains(&MAIN) {
            self.spin();
        }
        let (parker, wake) = {
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
            (state.runners[runner].parker.clone(), wake)
        };
        self.wake(wake);
        parker.wait();
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
            self.forget_queued(ticket);
        } else if let Some(interpreter) = self.interpreter() {
            interpreter.interrupt(ticket, phase);
        }
    }

    /// A request that will not run must not take a place in the queue.
    fn forget_queued(&self, ticket: &Arc<Ticket>) {
        let mut state = self.lock();
        let queue = &mut state.pools[ticket.pool()].queue;
        // The latest are the likeliest: who cancels has mostly just submitted.
        if let Some(position) = queue.iter().rposition(|job| Arc::ptr_eq(&job.ticket, ticket)) {
            let job = queue.remove(position);
            drop(state);
            drop(job);
        }
    }

    // --- for interrupting --------------------------------------------------------------------

    pub(crate) fn runs_on_main(&self, ticket: &Arc<Ticket>) -> bool {
        self.lock().runners[MAIN].is_at(ticket)
    }

    /// True where the main thread is at a request that somebody else settled, and was not given up.
    pub(crate) fn main_is_interrupted(&self) -> bool {
        let main = &self.lock().runners[MAIN];
        let interrupted = |current: &Current| {
            // One that was handed to the event loop is nothing that runs here any more.
            current.ticket.was_interrupted() && current.ticket.task() == 0
        };
        !main.retired && main.current.as_ref().is_some_and(interrupted)
    }

    pub(crate) fn thread_of(&self, ticket: &Arc<Ticket>) -> Option<ThreadId> {
        let state = self.lock();
        state.runners.iter().find(|runner| runner.is_at(ticket)).and_then(|runner| runner.id)
    }

    // --- for the watch -----------------------------------------------------------------------

    /// Lets another thread take over from those that have been at one request for `limit`.
    pub(crate) fn relieve(&self, now: Instant, limit: Duration) {
        let wake = {
            let mut state = self.lock();
            let mut blocked = 0;
            for current in state.runners.iter_mut().filter_map(|runner| runner.current.as_mut()) {
                if !current.blocked && now.saturating_duration_since(current.since) >= limit {
                    current.blocked = true;
                    blocked += 1;
                }
            }
            state.awake -= blocked;
            state.wake_for_work()
        };
        self.wake(wake);
    }

    /// What has been pending for `age`, wherever it is. Requests that were settled while they waited
    /// are let go.
    pub(crate) fn pending(&self, now: Instant, age: Duration) -> Vec<Arc<Ticket>> {
        let mut state = self.lock();
        let State { pools, runners, awaiting, .. } = &mut *state;
        let old = |ticket: &&Arc<Ticket>| {
            !ticket.is_settled() && now.saturating_duration_since(ticket.submitted()) >= age
        };
        let mut pending = Vec::new();
        for pool in pools {
            // The first is the oldest.
            if pool.queue.front().is_some_and(|job| job.ticket.is_settled() || old(&&job.ticket)) {
                pool.queue.retain(|job| !job.ticket.is_settled());
            }
            let queued = pool.start.iter().chain(&pool.queue).map(|job| &job.ticket);
            pending.extend(queued.take_while(old).cloned());
        }
        let running =
            runners.iter().filter_map(|runner| runner.current.as_ref()).map(|current| &current.ticket);
        pending.extend(running.chain(awaiting.values()).filter(old).cloned());
        pending
    }

    /// Tasks that were cancelled and have not ended within the grace of their pool: something blocks
    /// the event loop.
    pub(crate) fn stuck_tasks(&self, now: Instant) -> Vec<u64> {
        let state = self.lock();
        let grace = |ticket: &Ticket| state.pools[ticket.pool()].limits.grace;
        let stuck = |ticket: &&Arc<Ticket>| ticket.is_settled() && ticket.settled_for(now) >= grace(ticket);
        state.awaiting.values().filter(stuck).map(|ticket| ticket.task()).collect()
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

    /// Gives away the places of threads that do not come back from a settled request.
    pub(crate) fn retire_stuck(&self, now: Instant) {
        let wake = {
            let mut state = self.lock();
            let State { runners, pools, retired, .. } = &mut *state;
            pools.iter_mut().for_each(|pool| pool.stuck = 0);
            for runner in runners.iter_mut().filter(|runner| !runner.retired) {
                let Some(current) = runner.current.as_ref() else {
                    continue;
                };
                let pool = &mut pools[current.ticket.pool()];
                let stuck =
                    current.ticket.is_settled() && current.ticket.settled_for(now) >= pool.limits.grace;
                if stuck && current.blocked && *retired < MAX_RETIRED {
                    runner.retired = true;
                    *retired += 1;
                    pool.running -= 1;
                } else if stuck {
                    pool.stuck += 1;
                }
            }
            state.wake_for_work()
        };
        self.wake(wake);
    }

    /// True while there is anything the watch has to look at.
    pub(crate) fn is_busy(state: &State) -> bool {
        state.runners.iter().any(|runner| runner.current.is_some())
            || !state.awaiting.is_empty()
            || state.pools.iter().any(|pool| pool.start.is_some() || !pool.queue.is_empty())
    }

    pub(crate) fn is_starting(&self, pool: usize) -> bool {
        self.lock().pools[pool].stage == Stage::Starting
    }
}

impl Runner {
    fn is_at(&self, ticket: &Arc<Ticket>) -> bool {
        self.current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.ticket, ticket))
    }
}

/// A queue of requests with limits of its own, on the threads of an interpreter.
pub struct Pool {
    id: usize,
    scheduler: Arc<Scheduler>,
    calls: Arc<AtomicU64>,
}

impl Pool {
    pub fn open(interpreter: &Interpreter, limits: Limits) -> Self {
        let scheduler = interpreter.scheduler.clone();
        let calls = Arc::new(AtomicU64::new(0));
        let mut state = scheduler.lock();
        let id = state.pools.len();
        state.pools.push(PoolState {
            stage: Stage::Starting,
            limits,
            start: None,
            queue: VecDeque::new(),
            running: 0,
            awaiting: 0,
            stuck: 0,
            calls: calls.clone(),
        });
        drop(state);
        Pool { id, scheduler, calls }
    }

    /// Runs what the pool needs before it serves. Requests wait until [`Pool::opened`] is called.
    pub fn start(&self, job: Job) -> Result<(), Refusal> {
        self.push(job, |state, job| {
            state.pools[self.id].start = Some(job);
            Ok(())
        })
    }

    /// Lets requests run.
    pub fn opened(&self) {
        let wake = {
            let mut state = self.scheduler.lock();
            let pool = &mut state.pools[self.id];
            if pool.stage == Stage::Starting {
                pool.stage = Stage::Open;
            }
            state.wake_for_work()
        };
        self.scheduler.wake(wake);
    }

    pub fn submit(&self, job: Job) -> Result<(), Refusal> {
        self.push(job, |state, job| {
            if state.is_full(self.id) {
                return Err(Refusal::Overloaded);
            }
            state.pools[self.id].queue.push_back(job);
            Ok(())
        })?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn push(
        &self,
        job: Job,
        put: impl FnOnce(&mut State, Job) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        job.ticket.set_pool(self.id);
        let ticket = job.ticket.clone();
        let result = {
            let mut state = self.scheduler.lock();
            let stopped = state.pools[self.id].stage == Stage::Stopped;
            let put = if stopped { Err(Refusal::Stopped) } else { put(&mut state, job) };
            put.map(|()| {
                self.scheduler.queued.fetch_add(1, Ordering::Relaxed);
                self.scheduler.rouse_watch(&mut state);
                state.wake_for_work()
            })
        };
        match result {
            Ok(wake) => {
                self.scheduler.wake(wake);
                Ok(())
            }
            Err(refusal) => {
                // The refusal is the answer.
                ticket.discard();
                Err(refusal)
            }
        }
    }

    /// Ends a request on behalf of its caller.
    pub fn cancel(&self, ticket: &Arc<Ticket>) -> Cancel {
        self.scheduler.cancel(ticket)
    }

    /// Answers everything that is pending and takes nothing more.
    pub fn close(&self) {
        let tickets = {
            let mut state = self.scheduler.lock();
            let pool = &mut state.pools[self.id];
            if pool.stage == Stage::Stopped {
                return;
            }
            pool.stage = Stage::Stopped;
            let mut tickets: Vec<_> =
                pool.start.take().into_iter().chain(pool.queue.drain(..)).map(|job| job.ticket).collect();
            pool.limits.size = 0;
            let current = state.runners.iter().filter_map(|runner| runner.current.as_ref());
            let running = current.map(|current| &current.ticket).chain(state.awaiting.values());
            tickets.extend(running.filter(|ticket| ticket.pool() == self.id).cloned());
            tickets
        };
        for ticket in tickets {
            self.scheduler.fail(&ticket, Kind::Stopped, "the pool was stopped");
        }
        if let Some(interpreter) = self.scheduler.interpreter() {
            interpreter.errands.forget_pool(self.id);
        }
    }

    pub fn info(&self) -> PoolInfo {
        let state = self.scheduler.lock();
        let pool = &state.pools[self.id];
        PoolInfo {
            limits: pool.limits,
            queued: pool.queue.len(),
            running: pool.running - state.answered(self.id),
            awaiting: pool.awaiting,
            threads: state.threads(),
            retired: state.retired,
            calls: pool.calls.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}
