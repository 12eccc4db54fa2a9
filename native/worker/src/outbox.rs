//! What goes to the BEAM. Frames of the main thread wait for each other, but not for long.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use py_core::fork;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::ffi;
use crate::page::Page;

/// More than this is not kept back.
const ENOUGH: usize = 32 * 1024;

/// Nor anything for longer, while one short call follows another.
const SOON: Duration = Duration::from_micros(100);

/// A buffer that a large answer left behind is not kept.
const KEPT: usize = 1024 * 1024;

thread_local! {
    static IS_MAIN: Cell<bool> = const { Cell::new(false) };
}

pub struct Outbox {
    pipe: OwnedFd,
    kept: Mutex<Kept>,
    pub page: Page,
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    since: Option<Instant>,
    /// Bytes that went through this pipe before these.
    written: u64,
}

impl Outbox {
    /// To be called on the main thread, which flushes whenever it waits.
    pub fn new(pipe: OwnedFd) -> Self {
        IS_MAIN.set(true);
        Outbox { pipe, kept: Mutex::default(), page: Page::default() }
    }

    /// Goes on with another pipe, in a process that was forked when nothing was in line.
    pub fn reopen(&self, pipe: OwnedFd) -> std::io::Result<()> {
        self.lock().written = 0;
        ffi::replace(&self.pipe, &pipe)
    }

    /// Keeps in the page, from now on, what it keeps.
    pub fn open_page(&self) {
        let mut kept = self.lock();
        self.write(&mut kept);
        self.page.open(kept.written);
    }

    /// Puts a frame in line, to go out with the others.
    pub fn keep(&self, frame: &Frame) {
        if let Some(mut kept) = self.reach() {
            self.add(&mut kept, frame);
        }
    }

    fn add(&self, kept: &mut Kept, frame: &Frame) {
        let len = u32::try_from(frame.content().len()).expect("frames are shorter than 4 GB");
        let before = kept.bytes.len();
        kept.bytes.extend_from_slice(&len.to_be_bytes());
        kept.bytes.extend_from_slice(frame.content());
        if kept.bytes.len() <= ENOUGH {
            self.page.keep(before, &kept.bytes[before..]);
        }
    }

    /// Puts a frame in line, and writes the line when it is time.
    pub fn put(&self, frame: &Frame) {
        let Some(mut kept) = self.reach() else {
            return;
        };
        self.add(&mut kept, frame);
        let now = Instant::now();
        let since = *kept.since.get_or_insert(now);
        if !IS_MAIN.get() || kept.bytes.len() > ENOUGH || now - since > SOON {
            self.write(&mut kept);
        }
    }

    /// Bytes that were ever put in line.
    pub fn position(&self) -> u64 {
        self.reach().map_or(0, |kept| kept.written + kept.bytes.len() as u64)
    }

    pub fn flush(&self) {
        if let Some(mut kept) = self.reach() {
            self.write(&mut kept);
        }
    }

    fn write(&self, kept: &mut Kept) {
        let mut rest = &kept.bytes[..];
        while !rest.is_empty() {
            match rustix::io::write(&self.pipe, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let _ = poll(&mut [PollFd::new(&self.pipe, PollFlags::OUT)], None);
                }
                Err(_) => crate::leave(),
            }
        }
        kept.written += kept.bytes.len() as u64;
        if kept.bytes.capacity() > KEPT {
            kept.bytes = Vec::new();
        }
        kept.bytes.clear();
        kept.since = None;
        self.page.clear(kept.written);
    }

    /// None in a child that Python code forked: pipe and page are its parent's.
    fn reach(&self) -> Option<MutexGuard<'_, Kept>> {
        (!fork::is_child()).then(|| self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        crate::lock(&self.kept)
    }
}

/// Room for the length, which is known at the end.
const HEAD: usize = 4;

/// A frame that is being made.
pub struct Frame(pub Vec<u8>);

impl Frame {
    pub fn new(kind: u8) -> Self {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&[0, 0, 0, 0, kind]);
        Frame(bytes)
    }

    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Without its length.
    pub fn content(&self) -> &[u8] {
        &self.0[HEAD..]
    }
}
