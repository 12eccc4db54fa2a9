//! Large requests and answers, in memory that both processes see.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use py_core::Memory;
use py_shared::{Segment, Shelf};

use crate::etf::Malformed;
use crate::ffi;
use crate::frames::outgoing;
use crate::lock;
use crate::outbox::{Frame, Outbox};

/// So many bytes of segments of ours are kept for the next answers.
const KEPT: usize = 512 * 1024 * 1024;

/// One that was not used for so long is not kept.
const IDLE: Duration = Duration::from_secs(30);

/// A segment is on its way on another path than the request that names it.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Segments {
    control: OwnedFd,
    theirs: Mutex<HashMap<u32, Arc<Segment>>>,
    came: Condvar,
    ours: Mutex<Shelf>,
}

impl Segments {
    pub fn new(control: OwnedFd) -> Self {
        Segments {
            control,
            theirs: Mutex::default(),
            came: Condvar::new(),
            ours: Mutex::new(Shelf::new(KEPT)),
        }
    }

    pub fn control(&self) -> &OwnedFd {
        &self.control
    }

    /// Tells the BEAM what this process is at.
    pub fn show_page(&self, out: &Outbox) {
        if let Some(page) = out.page.segment() {
            self.pass(&[outgoing::PAGE], page);
        }
    }

    // --- the BEAM's ------------------------------------------------------------------------------

    pub fn adopt(&self, id: u32, file: OwnedFd) -> Result<(), Malformed> {
        let segment = Segment::adopt(file).map_err(|_| Malformed)?;
        lock(&self.theirs).insert(id, Arc::new(segment));
        self.came.notify_all();
        Ok(())
    }

    pub fn forget(&self, id: u32) {
        lock(&self.theirs).remove(&id);
    }

    /// The first `len` bytes of a segment that was lent to us.
    pub fn lease(&self, out: &'static Outbox, id: u32, len: usize) -> Result<Arc<Lease>, Malformed> {
        let theirs = lock(&self.theirs);
        let (theirs, _) = self
            .came
            .wait_timeout_while(theirs, PATIENCE, |theirs| !theirs.contains_key(&id))
            .unwrap_or_else(PoisonError::into_inner);
        let segment = theirs.get(&id).filter(|segment| segment.holds(0, len)).ok_or(Malformed)?;
        Ok(Arc::new(Lease { segment: Arc::clone(segment), id, len, out }))
    }

    // --- ours ------------------------------------------------------------------------------------

    /// Puts `parts` into a segment that the BEAM can read, and tells its number.
    pub fn fill(&self, out: &Outbox, parts: &[&[u8]]) -> Option<u32> {
        let len = parts.iter().map(|part| part.len()).sum();
        let taken = lock(&self.ours).take(len).ok()?;
        let filled = || {
            taken.segment.reserve(len).ok()?;
            let mut at = 0;
            for part in parts {
                taken.segment.write_at(at, part).ok()?;
                at += part.len();
            }
            (!taken.new || self.pass(&segment_header(taken.id), &taken.segment)).then_some(())
        };
        if filled().is_none() {
            // The BEAM may not have it, and forgets one that it does have.
            lock(&self.ours).remove(taken.id);
            out.put(&Frame::new(outgoing::DROPPED).u32(taken.id));
            return None;
        }
        Some(taken.id)
    }

    /// Lets go of what was not used for long.
    pub fn tidy(&self, out: &Outbox) {
        let dropped = lock(&self.ours).drop_idle(IDLE);
        tell_dropped(out, dropped);
    }

    /// The BEAM has read it.
    pub fn take_back(&self, out: &Outbox, id: u32) {
        let dropped = lock(&self.ours).put(id);
        tell_dropped(out, dropped);
    }

    fn pass(&self, header: &[u8], segment: &Segment) -> bool {
        py_shared::send_fd(&self.control, header, segment.as_fd()).is_ok()
    }
}

fn tell_dropped(out: &Outbox, ids: Vec<u32>) {
    for id in ids {
        out.put(&Frame::new(outgoing::DROPPED).u32(id));
    }
}

fn segment_header(id: u32) -> [u8; 5] {
    let [a, b, c, d] = id.to_be_bytes();
    [outgoing::SEGMENT, a, b, c, d]
}

/// A segment of the BEAM's for as long as it is being read. The BEAM writes it again when it hears
/// that it is not any more.
pub struct Lease {
    segment: Arc<Segment>,
    id: u32,
    len: usize,
    out: &'static Outbox,
}

impl Lease {
    pub fn bytes(&self) -> &[u8] {
        ffi::bytes(&self.segment, self.len)
    }

    /// A part of it, which keeps all of it.
    pub fn part(self: &Arc<Self>, begin: usize, len: usize) -> Part {
        Part { lease: Arc::clone(self), begin, len }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.out.put(&Frame::new(outgoing::RETURNED).u32(self.id));
    }
}

/// A part of a segment that Python sees.
pub struct Part {
    lease: Arc<Lease>,
    begin: usize,
    len: usize,
}

impl Memory for Part {
    fn bytes(&self) -> &[u8] {
        &self.lease.bytes()[self.begin..][..self.len]
    }
}
