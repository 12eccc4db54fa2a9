//! A queue of requests with limits of its own, on the threads of an interpreter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[cfg(not(feature = "limited"))]
use crate::gate::Closed;
#[cfg(not(feature = "limited"))]
use crate::inline::{self, Inline, Ran};
use crate::interpreter::Interpreter;
use crate::queue::Queue;
use crate::scheduler::{Scheduler, State};
use crate::ticket::{Cancel, Ticket};
use crate::wire::{Kind, Wire};

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
    /// The threads that could serve it sit in C code of requests that are over.
    Stuck,
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
    /// Why calls do not run inline now.
    #[cfg(not(feature = "limited"))]
    pub inline: Option<Closed>,
}

/// A request in progress.
#[derive(Clone, Debug)]
pub struct Running {
    pub subject: String,
    pub age_ms: u64,
    /// It is a coroutine on the event loop.
    pub awaiting: bool,
}

#[derive(PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its `init` has not ended: requests wait.
    Starting,
    Open,
    Stopped,
}

pub(crate) struct PoolState {
    pub stage: Stage,
    pub limits: Limits,
    pub start: Option<Arc<Ticket>>,
    pub queue: Queue,
    /// Threads that are at its requests.
    pub running: usize,
    /// Requests that those threads took.
    pub claimed: usize,
    pub awaiting: usize,
    /// Threads that were given up at its requests, and have not come back.
    pub retired: usize,
    /// Requests that were settled, whose threads do not come back and cannot be retired either.
    pub stuck: usize,
    pub calls: u64,
}

impl PoolState {
    pub fn has_work(&self) -> bool {
        match self.stage {
            Stage::Starting => self.start.is_some(),
            Stage::Open => !self.queue.is_empty() && self.running < self.limits.size,
            Stage::Stopped => false,
        }
    }

    /// Threads that it may have: those that a pool was left with when it was stopped are no others' places.
    pub fn places(&self) -> usize {
        self.limits.size.max(self.running)
    }

    /// Takes all that has not begun.
    pub fn take_waiting(&mut self) -> Vec<Arc<Ticket>> {
        let mut tickets = self.queue.drain();
        tickets.extend(self.start.take());
        tickets
    }

    /// Takes back what a thread had taken and did not come to.
    pub fn take_back(&mut self, tickets: impl DoubleEndedIterator<Item = Arc<Ticket>> + ExactSizeIterator) {
        self.claimed -= tickets.len();
        // A pool that was stopped has answered them.
        if self.stage != Stage::Stopped {
            self.queue.give_back(tickets);
        }
    }
}

impl State {
    /// Whether a pool takes no more. What is queued while there is a place for it to run does not wait.
    fn is_full(&self, pool: usize) -> bool {
        let PoolState { limits, queue, claimed, awaiting, .. } = &self.pools[pool];
        let limit = limits.size + limits.max_queue;
        let taken = claimed + queue.len() + awaiting;
        // Who got an answer and asks again must not find the pool full.
        let answered = || self.doing().map(|doing| doing.answered(pool)).sum::<usize>();
        taken >= limit && taken - answered() >= limit
    }

    fn refusal(&self, pool: usize) -> Option<Refusal> {
        match self.pools[pool].stage {
            Stage::Stopped => Some(Refusal::Stopped),
            // Where a pool starts, the answer to its start tells of it.
            Stage::Open if self.is_stranded(pool) => Some(Refusal::Stuck),
            _ if self.is_full(pool) => Some(Refusal::Overloaded),
            _ => None,
        }
    }
}

pub struct Pool {
    id: usize,
    scheduler: Arc<Scheduler>,
    /// It is open, for those who look without the lock.
    serves: AtomicBool,
    inline_calls: AtomicU64,
}

impl Pool {
    pub fn open(interpreter: &Interpreter, limits: Limits) -> Self {
        let scheduler = interpreter.scheduler.clone();
        let mut state = scheduler.lock();
        let id = state.pools.len();
        state.pools.push(PoolState {
            stage: Stage::Starting,
            limits,
            start: None,
            queue: Queue::default(),
            running: 0,
            claimed: 0,
            awaiting: 0,
            retired: 0,
            stuck: 0,
            calls: 0,
        });
        drop(state);
        Pool { id, scheduler, serves: AtomicBool::new(false), inline_calls: AtomicU64::new(0) }
    }

    pub fn id(&self) -> usize {
        self.id
    }

    /// A request to this pool.
    pub fn ticket(&self, wire: impl Wire + 'static, timeout: Option<Duration>) -> Arc<Ticket> {
        Ticket::new(self.id, wire, timeout)
    }

    /// Runs what the pool needs before it serves. Requests wait until [`Pool::opened`] is called.
    pub fn start(&self, ticket: Arc<Ticket>) -> Result<(), Refusal> {
        self.push(ticket, |pool, ticket| pool.start = Some(ticket))
    }

    /// Lets requests run.
    pub fn opened(&self) {
        let wake = {
            let mut state = self.scheduler.lock();
            let pool = &mut state.pools[self.id];
            if pool.stage == Stage::Starting {
                pool.stage = Stage::Open;
                self.serves.store(true, Ordering::Release);
            }
            state.wake_for_work()
        };
        self.scheduler.wake(wake);
    }

    pub fn submit(&self, ticket: Arc<Ticket>) -> Result<(), Refusal> {
        self.push(ticket, |pool, ticket| {
            pool.calls += 1;
            pool.queue.push(ticket);
        })
    }

    fn push(
        &self,
        ticket: Arc<Ticket>,
        put: impl FnOnce(&mut PoolState, Arc<Ticket>),
    ) -> Result<(), Refusal> {
        self.scheduler.take(ticket, |state, ticket| {
            if let Some(refusal) = state.refusal(self.id) {
                // It is the answer.
                ticket.discard();
                return Err(refusal);
            }
            put(&mut state.pools[self.id], ticket);
            Ok(())
        })
    }

    /// Runs a request on the calling thread, where that is possible now.
    #[cfg(not(feature = "limited"))]
    pub fn inline(&self, timeout: Option<Duration>, call: &mut impl Inline) -> Result<Ran, Closed> {
        match self.scheduler.interpreter() {
            Some(interpreter) if self.serves.load(Ordering::Acquire) => {
                inline::run(interpreter, self.id, timeout, &self.inline_calls, call)
            }
            _ => Err(Closed::NotServing),
        }
    }

    /// Ends a request on behalf of its caller.
    pub fn cancel(&self, ticket: &Arc<Ticket>) -> Cancel {
        self.scheduler.cancel(ticket)
    }

    /// The same for the request that its wire calls so; false where it is not here.
    pub fn cancel_id(&self, id: u64) -> bool {
        let pending = self.scheduler.pending(Instant::now(), Duration::ZERO);
        let ticket = pending.into_iter().find(|ticket| ticket.wire().id() == id);
        ticket.map(|ticket| self.cancel(&ticket)).is_some()
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
            self.serves.store(false, Ordering::Release);
            pool.limits.size = 0;
            let mut tickets = pool.take_waiting();
            let mine = |ticket: &&Arc<Ticket>| ticket.pool() == self.id;
            for doing in state.doing() {
                tickets.extend(doing.tickets().filter(mine).cloned());
            }
            tickets.extend(state.awaiting().filter(mine).cloned());
            tickets
        };
        for ticket in tickets {
            self.scheduler.fail(&ticket, Kind::Stopped, "before the call was answered");
        }
        if let Some(interpreter) = self.scheduler.interpreter() {
            interpreter.errands.forget_pool(self.id);
        }
    }

    pub fn info(&self) -> PoolInfo {
        let state = self.scheduler.lock();
        let pool = &state.pools[self.id];
        let mut info = PoolInfo {
            limits: pool.limits,
            queued: pool.queue.len(),
            running: 0,
            awaiting: pool.awaiting,
            threads: state.threads(),
            retired: state.retired,
            calls: pool.calls + self.inline_calls.load(Ordering::Relaxed),
            #[cfg(not(feature = "limited"))]
            inline: self.closed(),
        };
        for doing in state.doing().filter(|doing| doing.pool == Some(self.id)) {
            info.running += usize::from(doing.current.as_ref().is_some_and(|current| !current.is_answered()));
            info.queued += doing.batch.iter().filter(|ticket| !ticket.is_settled()).count();
        }
        info
    }

    #[cfg(not(feature = "limited"))]
    fn closed(&self) -> Option<Closed> {
        let serves = self.serves.load(Ordering::Acquire);
        let interpreter = self.scheduler.interpreter().filter(|_| serves);
        interpreter.map_or(Some(Closed::NotServing), |interpreter| interpreter.gate.closed())
    }

    /// The functions that take the queue for a while, since they took too long inline.
    #[cfg(not(feature = "limited"))]
    pub fn overran(&self) -> Vec<String> {
        self.scheduler.interpreter().map_or_else(Vec::new, |interpreter| interpreter.gate.banned())
    }

    /// What is in progress, the longest first.
    pub fn running(&self) -> Vec<Running> {
        let running = |(subject, age_ms, _, task)| Running { subject, age_ms, awaiting: task != 0 };
        self.scheduler.calls(self.id).into_iter().map(running).collect()
    }

    /// Answers with the Python stacks of what is in progress; never, while C code keeps the GIL.
    pub fn tell_stacks(&self, ticket: Arc<Ticket>) {
        if let Some(interpreter) = self.scheduler.interpreter() {
            interpreter.errands.tell_stacks(ticket);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}
