//! Threads that sit in C code beyond their time: nothing ends them, so they are retired, and others
//! take their places. Two limits keep their number down; beyond them requests are refused, and never
//! wait for a thread that does not come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Scheduler, State};
use crate::pool::Stage;
use crate::ticket::Ticket;

/// With so many of its own retired, a pool keeps the threads that are stuck, until all of its places are.
const MAX_RETIRED: usize = 16;

/// The threads of a pool that is stopped are retired whatever their number, since a pool that stops can
/// keep none. With so many, no thread is started any more, in the whole interpreter.
const MAX_LEFT_BEHIND: usize = 256;

/// A large answer is on its way for a while after it is settled, and what it was made of takes its time to go.
const FINISHING: Duration = Duration::from_secs(30);

impl State {
    pub(super) fn is_worn_out(&self) -> bool {
        self.retired >= MAX_LEFT_BEHIND
    }

    /// Whether what waits in a pool waits for threads that do not come back.
    pub fn is_stranded(&self, pool: usize) -> bool {
        let pool = &self.pools[pool];
        if pool.running < pool.limits.size {
            self.is_worn_out() && self.awake == 0 && self.parked.is_empty()
        } else {
            pool.stuck >= pool.limits.size.max(1)
        }
    }
}

impl Scheduler {
    /// Whether a thread does not come back from a settled request.
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        let state = self.lock();
        let stuck = |ticket: &Arc<Ticket>| {
            let grace = state.pools[ticket.pool()].limits.grace;
            let limit = if ticket.is_answered() { grace.max(FINISHING) } else { grace };
            ticket.is_settled() && ticket.settled_for(now) >= limit
        };
        state.doing().any(|doing| doing.current.as_ref().is_some_and(stuck))
    }

    /// Gives away the places of threads that do not come back from a settled request.
    pub(crate) fn retire_stuck(&self, now: Instant) {
        let wake = {
            let mut state = self.lock();
            let State { runners, pools, retired, .. } = &mut *state;
            pools.iter_mut().for_each(|pool| pool.stuck = 0);
            for runner in runners.iter_mut().filter(|runner| !runner.retired) {
                let mut doing = runner.desk.lock();
                // It has no place that could be given away, and hears of its end at once.
                if doing.suspended {
                    continue;
                }
                let Some(current) = doing.current.as_ref().filter(|current| current.is_settled()) else {
                    continue;
                };
                let pool = &mut pools[current.pool()];
                if current.settled_for(now) < pool.limits.grace {
                    continue;
                }
                if doing.blocked && (pool.retired < MAX_RETIRED || pool.stage == Stage::Stopped) {
                    runner.retired = true;
                    *retired += 1;
                    pool.retired += 1;
                    pool.running -= 1;
                    pool.claimed -= 1 + std::mem::take(&mut doing.done);
                } else {
                    pool.stuck += 1;
                }
            }
            state.wake_for_work()
        };
        self.wake(wake);
    }

    /// Takes what waits for threads that do not come back.
    pub(crate) fn take_stranded(&self) -> Vec<Arc<Ticket>> {
        let mut state = self.lock();
        let mut stranded = Vec::new();
        for pool in 0..state.pools.len() {
            if state.is_stranded(pool) {
                stranded.extend(state.pools[pool].take_waiting());
            }
        }
        self.count(&state);
        stranded
    }
}
