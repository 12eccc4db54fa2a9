//! Requests that wait: first come, first served, but for callers that flood.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::ticket::Ticket;

/// So many requests of one caller may stand in the line. The rest of them wait beside it, so that
/// others have no more than this of each caller before them.
const SHARE: u32 = 64;

/// Callers that are told apart. Two that fall together share a share, no more.
const LANES: usize = 1 << 10;

/// Settled requests that may stay in the queue: they cost memory and nothing else.
const SETTLED: usize = 64;

pub struct Queue {
    line: VecDeque<Arc<Ticket>>,
    /// How many of each caller stand in the line.
    in_line: Box<[u32]>,
    beside: HashMap<usize, VecDeque<Arc<Ticket>>>,
    len: usize,
    /// Requests that were settled while they waited, and are still in here.
    settled: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            line: VecDeque::new(),
            in_line: vec![0; LANES].into(),
            beside: HashMap::new(),
            len: 0,
            settled: 0,
        }
    }
}

impl Queue {
    /// Requests that wait to run.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, ticket: Arc<Ticket>) {
        ticket.set_queued(true);
        self.len += 1;
        let lane = ticket.lane();
        // Whoever has requests beside the line has a full share in it.
        if self.in_line[lane] >= SHARE {
            self.beside.entry(lane).or_default().push_back(ticket);
        } else {
            self.in_line[lane] += 1;
            self.line.push_back(ticket);
        }
    }

    pub fn pop(&mut self) -> Option<Arc<Ticket>> {
        while let Some(ticket) = self.line.pop_front() {
            self.step_up(ticket.lane());
            if ticket.set_queued(false) {
                self.len -= 1;
                return Some(ticket);
            }
            self.settled -= 1;
        }
        None
    }

    /// Puts back what was popped, to be the next again.
    pub fn give_back(&mut self, tickets: impl DoubleEndedIterator<Item = Arc<Ticket>>) {
        for ticket in tickets.rev() {
            ticket.set_queued(true);
            self.len += 1;
            self.in_line[ticket.lane()] += 1;
            self.line.push_front(ticket);
        }
    }

    /// Lets go of a request that was settled, if it is in here.
    pub fn forget(&mut self, ticket: &Ticket) {
        if !ticket.set_queued(false) {
            return;
        }
        self.len -= 1;
        self.settled += 1;
        if self.settled > SETTLED && self.settled > self.len {
            self.sweep();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Ticket>> {
        self.line.iter().chain(self.beside.values().flatten()).filter(|ticket| ticket.is_queued())
    }

    /// Empties the queue.
    pub fn drain(&mut self) -> Vec<Arc<Ticket>> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// One of the caller's left the line: the first that waits beside it takes its place in the back.
    fn step_up(&mut self, lane: usize) {
        self.in_line[lane] -= 1;
        if self.in_line[lane] >= SHARE || self.beside.is_empty() {
            return;
        }
        let Some(beside) = self.beside.get_mut(&lane) else { return };
        if let Some(next) = beside.pop_front() {
            self.in_line[lane] += 1;
            self.line.push_back(next);
        }
        if beside.is_empty() {
            self.beside.remove(&lane);
        }
    }

    fn sweep(&mut self) {
        let tickets = self.line.drain(..).chain(self.beside.drain().flat_map(|(_, beside)| beside));
        let waiting: Vec<_> = tickets.filter(|ticket| ticket.is_queued()).collect();
        *self = Queue::default();
        waiting.into_iter().for_each(|ticket| self.push(ticket));
    }
}

/// Where the requests of a caller are counted. The high bits of a multiplicative hash are its good ones.
pub fn lane(caller: u64) -> usize {
    let hash = caller.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (hash >> (u64::BITS - LANES.trailing_zeros())) as usize
}
