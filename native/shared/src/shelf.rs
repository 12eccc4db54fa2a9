//! Segments that wait to be used again: their memory is there already, and the other process knows them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Result;

use crate::segment::Segment;

/// What a process made and lends to another one, each under a number that is not given twice.
pub struct Shelf {
    /// The most bytes that free segments may have together.
    limit: usize,
    kept: usize,
    last_id: u32,
    all: HashMap<u32, Shelved>,
    /// By size; in each, the one that was free the longest comes first.
    free: BTreeMap<usize, VecDeque<Free>>,
}

struct Shelved {
    segment: Arc<Segment>,
    free: bool,
}

struct Free {
    id: u32,
    since: Instant,
}

/// A segment that is in use until its number is put back.
pub struct Taken {
    pub id: u32,
    pub segment: Arc<Segment>,
    /// It was made just now: the other process does not know it.
    pub new: bool,
}

impl Shelf {
    pub fn new(limit: usize) -> Self {
        Shelf { limit, kept: 0, last_id: 0, all: HashMap::new(), free: BTreeMap::new() }
    }

    /// A segment for that many bytes: the one of its size that was used last, whose memory is likeliest
    /// to be in the cache; else a new one.
    pub fn take(&mut self, len: usize) -> Result<Taken> {
        let size = Segment::size_for(len)?;
        if let Some((id, segment)) = self.take_free(size) {
            return Ok(Taken { id, segment, new: false });
        }
        let segment = Arc::new(Segment::create(size)?);
        let id = self.next_id();
        self.all.insert(id, Shelved { segment: Arc::clone(&segment), free: false });
        Ok(Taken { id, segment, new: true })
    }

    fn take_free(&mut self, size: usize) -> Option<(u32, Arc<Segment>)> {
        let free = self.free.get_mut(&size)?.pop_back()?;
        self.kept -= size;
        let shelved = self.all.get_mut(&free.id)?;
        shelved.free = false;
        Some((free.id, Arc::clone(&shelved.segment)))
    }

    fn next_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.all.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// The segment of a number.
    pub fn get(&self, id: u32) -> Option<&Arc<Segment>> {
        self.all.get(&id).map(|shelved| &shelved.segment)
    }

    /// Takes a segment back, and returns the numbers of those that were dropped for it because the
    /// shelf is full: the other process shall forget them too. A number that is unknown, or free
    /// already, changes nothing.
    pub fn put(&mut self, id: u32) -> Vec<u32> {
        let Some(shelved) = self.all.get_mut(&id).filter(|shelved| !shelved.free) else { return Vec::new() };
        shelved.free = true;
        let size = shelved.segment.size();
        self.free.entry(size).or_default().push_back(Free { id, since: Instant::now() });
        self.kept += size;
        self.drop_while(|shelf, _| shelf.kept > shelf.limit)
    }

    /// Drops a segment that was taken, and that the other process did not come to have.
    pub fn remove(&mut self, id: u32) {
        if self.all.get(&id).is_some_and(|shelved| !shelved.free) {
            self.all.remove(&id);
        }
    }

    /// Drops what has been free for that long, and returns the numbers.
    pub fn drop_idle(&mut self, idle: Duration) -> Vec<u32> {
        let now = Instant::now();
        self.drop_while(|_, since| now.duration_since(since) >= idle)
    }

    /// The bytes of the free segments.
    pub fn kept(&self) -> usize {
        self.kept
    }

    fn drop_while(&mut self, condition: impl Fn(&Self, Instant) -> bool) -> Vec<u32> {
        let mut dropped = Vec::new();
        while let Some((size, since)) = self.oldest()
            && condition(self, since)
        {
            dropped.extend(self.drop_oldest(size));
        }
        dropped
    }

    /// The size of the segment that was free the longest, the larger one of two.
    fn oldest(&self) -> Option<(usize, Instant)> {
        let oldest = self.free.iter().rev().filter_map(|(size, free)| Some((*size, free.front()?.since)));
        oldest.min_by_key(|(_, since)| *since)
    }

    fn drop_oldest(&mut self, size: usize) -> Option<u32> {
        let free = self.free.get_mut(&size)?.pop_front()?;
        self.kept -= size;
        self.all.remove(&free.id);
        Some(free.id)
    }
}
