//! What one thread is at, and what it took along to do next. Its lock is held for moments, mostly by
//! the thread itself; whoever holds the scheduler's lock may take it, never the other way round.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::ffi::ThreadId;
use crate::ticket::Ticket;
use crate::wire::Inbox;

#[derive(Default)]
pub struct Desk {
    pub parker: Parker,
    thread: OnceLock<ThreadId>,
    doing: Mutex<Doing>,
}

#[derive(Default)]
pub struct Doing {
    pub current: Option<Arc<Ticket>>,
    pub batch: VecDeque<Arc<Ticket>>,
    /// The pool that the batch is of, until the scheduler has booked it.
    pub pool: Option<usize>,
    /// Requests of the batch that were done.
    pub done: usize,
    /// Somebody else has taken over meanwhile.
    pub blocked: bool,
    /// It waits for an answer of the BEAM, and has given its place away.
    pub suspended: bool,
}

impl Desk {
    pub fn lock(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the request that the thread was at, and gives it the next of its batch.
    pub fn next(&self) -> Option<Arc<Ticket>> {
        let mut doing = self.lock();
        if doing.current.take().is_some() {
            doing.done += 1;
        }
        if doing.blocked {
            return None;
        }
        let next = doing.batch.pop_front();
        doing.current.clone_from(&next);
        next
    }

    /// Is there nothing in its batch that the thread could do next?
    pub fn is_bare(&self) -> bool {
        let doing = self.lock();
        doing.batch.is_empty() && !doing.blocked
    }

    pub fn introduce(&self, thread: ThreadId) {
        let _ = self.thread.set(thread);
    }

    pub fn thread(&self) -> Option<ThreadId> {
        self.thread.get().copied()
    }

    pub fn is_at(&self, ticket: &Arc<Ticket>) -> bool {
        self.lock().current.as_ref().is_some_and(|current| Arc::ptr_eq(current, ticket))
    }
}

impl Doing {
    /// Whether the thread has been at one request for `limit`.
    pub fn is_late(&self, now: Instant, limit: Duration) -> bool {
        let since = self.current.as_ref().and_then(|current| current.started());
        since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
    }

    /// Requests of `pool` that have their answer and still take a place.
    pub fn answered(&self, pool: usize) -> usize {
        if self.pool != Some(pool) {
            return 0;
        }
        self.done + usize::from(self.current.as_ref().is_some_and(|current| current.is_answered()))
    }

    pub fn tickets(&self) -> impl Iterator<Item = &Arc<Ticket>> {
        self.current.iter().chain(&self.batch)
    }
}

/// Where a thread waits to be woken.
#[derive(Default)]
pub struct Parker {
    thread: OnceLock<Thread>,
    woken: AtomicBool,
    inbox: OnceLock<&'static dyn Inbox>,
}

impl Parker {
    pub fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        if let Some(inbox) = self.inbox.get() {
            inbox.wake();
        } else if let Some(thread) = self.thread.get() {
            // A thread that has not come this far looks at the flag when it does.
            thread.unpark();
        }
    }

    pub fn wait(&self) {
        self.thread.get_or_init(std::thread::current);
        while !self.woken.swap(false, Ordering::Acquire) {
            match self.inbox.get() {
                Some(inbox) => inbox.wait(&self.woken),
                None => std::thread::park(),
            }
        }
    }

    /// Has the thread wait at an inbox from now on.
    pub fn wait_at(&self, inbox: &'static dyn Inbox) {
        let _ = self.inbox.set(inbox);
    }
}
