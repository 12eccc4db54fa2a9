//! A place in shared memory for one small request at a time, between a worker that looks for requests
//! anyway and a caller that waits a few microseconds for the answer: neither a message nor a system
//! call is on the way. What takes longer, or has more to say, goes on as any other request does.
//!
//! ```text
//!  FREE -> CLAIMED -> ASKED -> TAKEN -> ANSWERED -> FREE      the way of a short call
//!            |          |       |  \
//!            v          v       v   v
//!           FREE       FREE   LONG -> LEAVING -> LEFT -> FREE
//!         (shut)   (not taken)        the caller waits elsewhere
//! ```
//!
//! Each state belongs to one side, which alone may leave it; of ASKED and TAKEN whoever is first.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::thread;

use rustix::io::{Errno, Result};

use crate::Segment;

const FREE: u64 = 0;
/// A caller writes a request.
const CLAIMED: u64 = 1;
const ASKED: u64 = 2;
/// The worker is at it.
const TAKEN: u64 = 3;
const ANSWERED: u64 = 4;
/// The worker cannot answer here, and waits until the caller has left.
const LONG: u64 = 5;
/// The caller sees to it that an answer will find it elsewhere.
const LEAVING: u64 = 6;
const LEFT: u64 = 7;

/// Where the lane is, behind what its segment holds else.
const PLACE: usize = 48 << 10;

/// Words that different processes write lie in different lines of the cache.
const LINE: usize = 64;
const STATE: usize = PLACE / 8;
const AWAKE: usize = (PLACE + LINE) / 8;
const TAKEN_EVER: usize = AWAKE + 1;
const SHUT: usize = (PLACE + 2 * LINE) / 8;
const LEN: usize = (PLACE + 3 * LINE) / 8;
const BYTES: usize = PLACE + 3 * LINE + 8;

/// The longest request and the longest answer.
pub const LANE_ROOM: usize = 4096;

/// Either side of a lane.
#[derive(Clone, Copy)]
pub struct Lane<'a> {
    segment: &'a Segment,
    state: &'a AtomicU64,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Waits,
    Answered,
    /// The answer will come another way, once the caller has left.
    Long,
}

impl<'a> Lane<'a> {
    /// The lane of a segment; none where that has no room for one.
    pub fn of(segment: &'a Segment) -> Option<Self> {
        if !segment.holds(BYTES, LANE_ROOM) {
            return None;
        }
        Some(Lane { segment, state: segment.word(STATE)? })
    }

    fn word(&self, index: usize) -> &'a AtomicU64 {
        self.segment.word(index).expect("a lane lies within its segment")
    }

    fn go(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, SeqCst, Relaxed).is_ok()
    }

    fn write(&self, parts: &[&[u8]]) -> Result<()> {
        let mut len = 0;
        for part in parts {
            if len + part.len() > LANE_ROOM {
                return Err(Errno::INVAL);
            }
            self.segment.write_at(BYTES + len, part)?;
            len += part.len();
        }
        self.word(LEN).store(len as u64, Relaxed);
        Ok(())
    }

    fn len(&self) -> usize {
        usize::try_from(self.word(LEN).load(Relaxed)).map_or(LANE_ROOM, |len| len.min(LANE_ROOM))
    }

    // --- the worker's side -----------------------------------------------------------------------

    /// The worker looks for requests from now on.
    pub fn open(&self) {
        self.word(AWAKE).store(1, SeqCst);
    }

    /// The worker looks no more; what was asked before it said so is to be taken now.
    pub fn close(&self) {
        self.word(AWAKE).store(0, SeqCst);
    }

    /// Takes the request that is there, if one is.
    pub fn take(&self) -> Option<Vec<u8>> {
        if self.state.load(SeqCst) != ASKED || !self.go(ASKED, TAKEN) {
            return None;
        }
        self.word(TAKEN_EVER).fetch_add(1, Relaxed);
        let mut bytes = vec![0; self.len()];
        self.segment.read_at(BYTES, &mut bytes).expect("a lane lies within its segment");
        Some(bytes)
    }

    /// Answers the request that was taken, if the answer fits and its caller is still there. Else this
    /// is to be declined, and the answer to go another way.
    pub fn answer(&self, bytes: &[u8]) -> bool {
        self.state.load(Acquire) == TAKEN && self.write(&[bytes]).is_ok() && self.go(TAKEN, ANSWERED)
    }

    /// Waits until the caller of the request that was taken has left, and leaves as well.
    pub fn decline(&self) {
        self.go(TAKEN, LONG);
        while self.state.load(Acquire) != LEFT {
            // The caller looks all the time: it is at it, or another thread has its core.
            thread::yield_now();
        }
        self.state.store(FREE, Release);
    }

    // --- the caller's side -----------------------------------------------------------------------

    /// Claims the lane for a request of so many bytes, if the worker looks for one and nobody else is
    /// there.
    pub fn claim(&self, len: usize) -> bool {
        if len > LANE_ROOM || !self.is_free() || !self.awake() || !self.go(FREE, CLAIMED) {
            return false;
        }
        let shut = self.word(SHUT).load(SeqCst) != 0;
        if shut {
            self.state.store(FREE, Release);
        }
        !shut
    }

    /// Asks, in a lane that was claimed; false where it is not to be.
    pub fn ask(&self, parts: &[&[u8]]) -> bool {
        if self.write(parts).is_err() {
            self.state.store(FREE, Release);
            return false;
        }
        self.state.store(ASKED, SeqCst);
        // A worker that fell asleep just before that will not look.
        self.awake() || !self.withdraw()
    }

    pub fn progress(&self) -> Progress {
        match self.state.load(Acquire) {
            ANSWERED => Progress::Answered,
            LONG => Progress::Long,
            _ => Progress::Waits,
        }
    }

    /// How long the answer is.
    pub fn answer_len(&self) -> usize {
        self.len()
    }

    /// The answer. The lane is free then.
    pub fn read(&self, bytes: &mut [u8]) -> Result<()> {
        let result = self.segment.read_at(BYTES, bytes);
        self.state.store(FREE, Release);
        result
    }

    /// Takes back what was asked, if it was not taken yet.
    pub fn withdraw(&self) -> bool {
        self.go(ASKED, FREE)
    }

    /// The caller of what was taken begins to leave; false where it has just been answered. A worker
    /// that spoilt its memory, and wrote what is no state, keeps nobody.
    pub fn leave(&self) -> bool {
        let state = self.state.load(Acquire);
        state != ANSWERED && self.go(state, LEAVING)
    }

    /// The caller has left: an answer will find it elsewhere.
    pub fn left(&self) {
        self.state.store(LEFT, Release);
    }

    fn awake(&self) -> bool {
        self.word(AWAKE).load(SeqCst) != 0
    }

    /// Is nobody there?
    pub fn is_free(&self) -> bool {
        self.state.load(SeqCst) == FREE
    }

    /// Is it free, or to be so soon, and does the worker look?
    pub fn is_promising(&self) -> bool {
        self.state.load(Acquire) < LONG && self.awake()
    }

    /// Lets nobody in any more. Once it is free then, it stays so.
    pub fn shut(&self) {
        self.word(SHUT).store(1, SeqCst);
    }

    /// Requests that the worker took, ever.
    pub fn taken_ever(&self) -> u64 {
        self.word(TAKEN_EVER).load(Relaxed)
    }
}
