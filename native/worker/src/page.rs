//! What this process is at, in memory that the BEAM sees too: when this process dies, that tells which
//! requests had begun, and what was answered and not yet written.
//!
//! The first words are the ids of the requests that threads began last, one word a thread. Then comes
//! how many bytes were written, the length of what the outbox keeps, and what it keeps; and behind all
//! that the lane.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use py_core::fork;
use py_shared::{Lane, Segment};

/// Threads that are told apart. Where there is one more the last word says so, and nothing is known of what had begun.
const THREADS: usize = 125;
const MORE: usize = 125;

/// Where it is that tells how much was written before what is kept: it may be that it was written, or
/// begun to be, and this process died before it could say so.
const WRITTEN: usize = 126;

/// Where the length of what is kept is, as a word, and where what is kept begins.
const LEN: usize = 127;
const KEPT: usize = 1024;

#[derive(Default)]
pub struct Page(OnceLock<Segment>);

thread_local! {
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

static PLACES: AtomicUsize = AtomicUsize::new(0);

impl Page {
    /// Where there is no memory for it, nothing is told.
    pub fn open(&self, written: u64) {
        if let Ok(segment) = Segment::create(1) {
            let _ = self.0.set(segment);
            self.clear(written);
        }
    }

    pub fn segment(&self) -> Option<&Segment> {
        self.0.get()
    }

    /// Where a caller may ask while this process looks for requests. It is our parent's where we are
    /// a child of its.
    pub fn lane(&self) -> Option<Lane<'_>> {
        if fork::is_child() { None } else { Lane::of(self.0.get()?) }
    }

    /// The calling thread begins a request.
    pub fn begin(&self, id: u64) {
        let place = PLACE.get().unwrap_or_else(|| {
            let place = PLACES.fetch_add(1, Ordering::Relaxed);
            PLACE.set(Some(place));
            place
        });
        let (index, id) = if place < THREADS { (place, id) } else { (MORE, u64::MAX) };
        if let Some(word) = self.word(index) {
            word.store(id, Ordering::Release);
        }
    }

    /// The outbox keeps `bytes` more behind those `len` that it keeps.
    pub fn keep(&self, len: usize, bytes: &[u8]) {
        let Some(segment) = self.0.get() else { return };
        if segment.write_at(KEPT + len, bytes).is_ok()
            && let Some(word) = self.word(LEN)
        {
            word.store((len + bytes.len()) as u64, Ordering::Release);
        }
    }

    /// The outbox has written what it kept, and so many bytes up to there.
    pub fn clear(&self, total: u64) {
        if let (Some(len), Some(written)) = (self.word(LEN), self.word(WRITTEN)) {
            len.store(0, Ordering::Release);
            written.store(total, Ordering::Release);
        }
    }

    fn word(&self, index: usize) -> Option<&std::sync::atomic::AtomicU64> {
        self.0.get()?.word(index)
    }
}
