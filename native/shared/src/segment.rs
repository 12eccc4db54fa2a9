//! A piece of shared memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use rustix::fs::{
    FileType, MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate,
    memfd_create,
};
use rustix::io::{Errno, Result};

use crate::ffi::Mapping;

/// The smallest size; a page of status words takes that much of addresses, and one page of memory.
const SMALLEST: usize = 64 << 10;

/// The file system of a memfd without huge pages, whose faults can fail.
const TMPFS: u32 = 0x0102_1994;

/// A file in memory that has no name, mapped for reading and writing, and that cannot shrink: else a
/// process that made it shorter would end the other one by SIGBUS.
pub struct Segment {
    mapping: Mapping,
    file: OwnedFd,
    /// The bytes, from the start, for which there is memory.
    reserved: AtomicUsize,
}

impl Segment {
    /// The size of a segment that holds that many bytes: sizes are few, so that segments are used again.
    pub fn size_for(len: usize) -> Result<usize> {
        let size = len.max(SMALLEST).checked_next_power_of_two().ok_or(Errno::NOMEM)?;
        if isize::try_from(size).is_ok() { Ok(size) } else { Err(Errno::NOMEM) }
    }

    /// Makes a segment that holds at least that many bytes, all of them zero.
    pub fn create(len: usize) -> Result<Self> {
        let size = Self::size_for(len)?;
        let file = memory_file()?;
        ftruncate(&file, size as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(file, size)
    }

    /// Maps what another process made, if it is a file in memory that cannot shrink; else `EINVAL`,
    /// and the file is closed.
    pub fn adopt(file: OwnedFd) -> Result<Self> {
        let seals = fcntl_get_seals(&file)?;
        // The size is read after the seal is seen.
        let stat = fstat(&file)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let size = usize::try_from(stat.st_size).map_err(|_| Errno::INVAL)?;
        if !regular || size == 0 || !seals.contains(SealFlags::SHRINK) || !is_tmpfs(&file)? {
            return Err(Errno::INVAL);
        }
        Self::map(file, size)
    }

    fn map(file: OwnedFd, size: usize) -> Result<Self> {
        Ok(Segment { mapping: Mapping::of(&file, size)?, file, reserved: AtomicUsize::new(0) })
    }

    pub fn size(&self) -> usize {
        self.mapping.len()
    }

    /// Does that range lie within the segment?
    pub fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.size())
    }

    /// Sees to it that there is memory for the first `len` bytes, which costs nothing where there is.
    pub fn reserve(&self, len: usize) -> Result<()> {
        let before = self.reserved.load(Ordering::Relaxed);
        if len <= before {
            return Ok(());
        }
        let end = len.checked_next_multiple_of(SMALLEST).map_or(self.size(), |end| end.min(self.size()));
        self.mapping.populate(before..end)?;
        self.reserved.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    /// Copies bytes into the segment; `EINVAL` where they do not fit.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.reserve(offset.saturating_add(bytes.len()).min(self.size()))?;
        self.mapping.copy_in(offset, bytes).ok_or(Errno::INVAL)
    }

    /// Copies bytes out of the segment; `EINVAL` where it ends before.
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.mapping.copy_out(offset, bytes).ok_or(Errno::INVAL)
    }

    /// The bytes themselves, which change when the other process writes. Their address is good for as
    /// long as the segment lives.
    pub fn view(&self, offset: usize, len: usize) -> Option<&[AtomicU8]> {
        self.mapping.view(offset, len)
    }

    /// The 64-bit word at 8 * `index`, for what one process tells the other while it runs.
    pub fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.mapping.word(index)
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Some machines allow only memory that cannot be executed; Linux before 6.3 does not know the flag.
fn memory_file() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create("py", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("py", flags),
        result => result,
    }
}

fn is_tmpfs(file: &OwnedFd) -> Result<bool> {
    // The type of the field differs between machines.
    #[allow(clippy::unnecessary_cast)]
    Ok(fstatfs(file)?.f_type as u32 == TMPFS)
}
