//! Requests that wait: first come, first served, but for callers that flood.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::by_word::ByWord;
use crate::ticket::Ticket;

/// So many requests of one caller may stand in the line: about what a thread takes at once. The rest
/// of them wait beside it, so that others have no more than this of each caller before them.
const SHARE: u32 = 16;

/// Settled requests that may stay in the queue: they cost memory and nothing else.
const SETTLED: usize = 64;

#[derive(Default)]
pub struct Queue {
    line: VecDeque<Arc<Ticket>>,
    /// How many of each caller stand in the line; most callers have one, and come and go with it.
    in_line: ByWord<u32>,
    beside: ByWord<VecDeque<Arc<Ticket>>>,
    len: usize,
    /// Requests that were settled while they waited, and are still in here.
    settled: usize,
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
        let in_line = self.in_line.entry(ticket.caller()).or_default();
        // Whoever has requests beside the line has a full share in it.
        if *in_line >= SHARE {
            self.beside.entry(ticket.caller()).or_default().push_back(ticket);
        } else {
            *in_line += 1;
            self.line.push_back(ticket);
        }
    }

    pub fn pop(&mut self) -> Option<Arc<Ticket>> {
        while let Some(ticket) = self.line.pop_front() {
            self.step_up(ticket.caller());
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
            *self.in_line.entry(ticket.caller()).or_default() += 1;
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
        let mut queue = std::mem::take(self);
        std::iter::from_fn(|| queue.pop()).collect()
    }

    /// One of the caller's left the line: the first that waits beside it takes its place in the back.
    fn step_up(&mut self, caller: u64) {
        let Entry::Occupied(mut in_line) = self.in_line.entry(caller) else { return };
        if *in_line.get() == SHARE
            && let Some(next) = next_of(&mut self.beside, caller)
        {
            self.line.push_back(next);
        } else if *in_line.get() > 1 {
            *in_line.get_mut() -= 1;
        } else {
            in_line.remove();
        }
    }

    fn sweep(&mut self) {
        let tickets = self.line.drain(..).chain(self.beside.drain().flat_map(|(_, beside)| beside));
        let waiting: Vec<_> = tickets.filter(|ticket| ticket.is_queued()).collect();
        *self = Queue::default();
        waiting.into_iter().for_each(|ticket| self.push(ticket));
    }
}

/// The first of those that wait beside the line.
fn next_of(beside: &mut ByWord<VecDeque<Arc<Ticket>>>, caller: u64) -> Option<Arc<Ticket>> {
    let Entry::Occupied(mut waiting) = beside.entry(caller) else { return None };
    let first = waiting.get_mut().pop_front();
    if waiting.get().is_empty() {
        waiting.remove();
    }
    first
}
