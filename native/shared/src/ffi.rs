//! All of this crate's `unsafe`: what touches shared memory.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU8, AtomicU64};

use rustix::io::{Errno, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// While pages are supplied, other threads that map or unmap memory wait: so many bytes at a time take a
/// third of a millisecond.
const CHUNK: usize = 1 << 20;

/// A file in memory, mapped from its start to its end. The file must never shrink.
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the whole process until it is dropped, and all access to it is by
// copies and atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; the other process writes at any time anyway.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub fn of(file: &OwnedFd, len: usize) -> Result<Self> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { mmap(ptr::null_mut(), len, rights, MapFlags::SHARED, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Mapping { start, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of a range, where it lies within the mapping.
    fn at(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        // SAFETY: within the mapping, or one past its end for nothing.
        (end <= self.len).then(|| unsafe { self.start.add(offset) })
    }

    /// As by `memmove`: the bytes may be a binary on this very mapping.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        let target = self.at(offset, bytes.len())?;
        // SAFETY: the target is mapped and writable for that length. The compiler sees no reference
        // to it, so another process that writes there can spoil the bytes only.
        unsafe { ptr::copy(bytes.as_ptr(), target.as_ptr(), bytes.len()) };
        Some(())
    }

    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) -> Option<()> {
        let source = self.at(offset, bytes.len())?;
        // SAFETY: as in `copy_in`; any byte is a valid u8.
        unsafe { ptr::copy(source.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
        Some(())
    }

    pub fn view(&self, offset: usize, len: usize) -> Option<&[AtomicU8]> {
        let start = self.at(offset, len)?;
        // SAFETY: mapped for as long as self is; an atomic may change under a shared reference.
        Some(unsafe { slice::from_raw_parts(start.as_ptr().cast(), len) })
    }

    pub fn word(&self, index: usize) -> Option<&AtomicU64> {
        let start = self.at(index.checked_mul(8)?, 8)?;
        // SAFETY: as in `view`; a mapping starts on a page, so its words are aligned.
        Some(unsafe { start.cast().as_ref() })
    }

    /// Has the kernel supply the pages of a range that starts on a page: in two thirds of the time that
    /// their faults would take, and where there is no memory left with an error, not with SIGBUS.
    pub fn populate(&self, range: Range<usize>) -> Result<()> {
        for offset in range.clone().step_by(CHUNK) {
            let len = CHUNK.min(range.end - offset);
            let start = self.at(offset, len).ok_or(Errno::INVAL)?;
            // SAFETY: the range is within the mapping, and no byte of it changes.
            match unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxPopulateWrite) } {
                // Linux before 5.14.
                Err(Errno::INVAL) => return Ok(()),
                result => result?,
            }
        }
        Ok(())
    }
}

impl Drop for Mapping {
    /// Page tables go piece by piece first, so that nobody waits long here either.
    fn drop(&mut self) {
        for offset in (0..self.len).step_by(CHUNK) {
            let len = CHUNK.min(self.len - offset);
            // SAFETY: within the mapping; what is shared stays in the file.
            let _ = unsafe { madvise(self.start.as_ptr().add(offset).cast(), len, Advice::LinuxDontNeed) };
        }
        // SAFETY: mapped in `of`; nobody borrows from it any longer. It cannot fail: the range is one
        // whole mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Asks for huge pages, and for all pages ahead, under memory that is about to be filled; fresh memory
/// of 100 MB is then filled in less than half the time. Where that cannot be had nothing is lost.
pub fn prepare(memory: &mut [u8]) {
    advise(whole(memory, HUGE_PAGE), Advice::LinuxHugepage);
    for chunk in whole(memory, PAGE).chunks_mut(CHUNK) {
        advise(chunk, Advice::LinuxPopulateWrite);
    }
}

/// The whole pages of a piece of memory.
fn whole(memory: &mut [u8], page: usize) -> &mut [u8] {
    let skipped = memory.as_ptr().align_offset(page).min(memory.len());
    let memory = &mut memory[skipped..];
    let len = memory.len() / page * page;
    &mut memory[..len]
}

fn advise(memory: &mut [u8], advice: Advice) {
    let start: *mut c_void = memory.as_mut_ptr().cast();
    // SAFETY: the memory is borrowed for writing, and neither advice changes a byte of it.
    let _ = unsafe { madvise(start, memory.len(), advice) };
}
