//! Segments: what fits, what is refused, and that nothing of them is left.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use py_shared::Segment;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};
use rustix::io::Errno;

fn other_side(segment: &Segment) -> Segment {
    Segment::adopt(segment.as_fd().try_clone_to_owned().unwrap()).unwrap()
}

fn memory_file(size: u64, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, size).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file
}

fn refusal(file: impl Into<OwnedFd>) -> Errno {
    Segment::adopt(file.into()).err().expect("the file should be refused")
}

#[test]
fn what_one_side_writes_the_other_reads() {
    let segment = Segment::create(100_000).unwrap();
    let other = other_side(&segment);
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    segment.write_at(7, &bytes).unwrap();

    let mut read = vec![1; 100_000];
    other.read_at(7, &mut read).unwrap();
    assert!(read == bytes);
    let view = other.view(7, 100_000).unwrap();
    assert!(view.iter().zip(&bytes).all(|(seen, byte)| seen.load(Ordering::Relaxed) == *byte));
}

#[test]
fn sizes_are_few() {
    for (len, size) in [(0, 1 << 16), (1, 1 << 16), (1 << 16, 1 << 16), ((1 << 16) + 1, 1 << 17)] {
        assert_eq!(Segment::create(len).unwrap().size(), size);
    }
    assert_eq!(Segment::create(usize::MAX).err(), Some(Errno::NOMEM));
    assert_eq!(Segment::create(usize::MAX / 2).err(), Some(Errno::NOMEM));
}

#[test]
fn nothing_is_reached_beyond_the_end() {
    let segment = Segment::create(1 << 16).unwrap();
    let end = segment.size();
    segment.write_at(end, b"").unwrap();
    segment.write_at(end - 1, b"a").unwrap();
    for (offset, len) in [(end, 1), (end - 1, 2), (usize::MAX, 1), (usize::MAX, 2), (0, end + 1)] {
        let mut bytes = vec![0; len];
        assert_eq!(segment.write_at(offset, &bytes), Err(Errno::INVAL));
        assert_eq!(segment.read_at(offset, &mut bytes), Err(Errno::INVAL));
        assert!(segment.view(offset, len).is_none());
        assert!(!segment.holds(offset, len));
    }
    assert!(segment.word(end / 8 - 1).is_some());
    assert!(segment.word(end / 8).is_none());
    assert!(segment.word(usize::MAX).is_none());
}

#[test]
fn words_are_shared() {
    let segment = Segment::create(4096).unwrap();
    let other = other_side(&segment);
    segment.word(3).unwrap().store(u64::MAX, Ordering::Release);
    assert_eq!(other.word(3).unwrap().load(Ordering::Acquire), u64::MAX);
    assert_eq!(other.word(2).unwrap().load(Ordering::Acquire), 0);
}

#[test]
fn a_segment_keeps_its_size() {
    let segment = Segment::create(1).unwrap();
    let seals = fcntl_get_seals(&segment).unwrap();
    assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
    assert_eq!(ftruncate(&segment, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(&segment, 1 << 20), Err(Errno::PERM));
}

#[test]
fn what_could_shrink_or_fail_is_refused() {
    assert_eq!(refusal(File::open("/proc/self/exe").unwrap()), Errno::INVAL);
    assert_eq!(refusal(File::open("/").unwrap()), Errno::INVAL);
    assert_eq!(refusal(File::open("/dev/zero").unwrap()), Errno::INVAL);
    assert_eq!(refusal(memory_file(1 << 16, SealFlags::empty())), Errno::INVAL);
    assert_eq!(refusal(memory_file(1 << 16, SealFlags::GROW)), Errno::INVAL);
    assert_eq!(refusal(memory_file(0, SealFlags::SHRINK)), Errno::INVAL);
    let huge = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB);
    if let Ok(huge) = huge {
        ftruncate(&huge, 1 << 21).unwrap();
        fcntl_add_seals(&huge, SealFlags::SHRINK).unwrap();
        assert_eq!(refusal(huge), Errno::INVAL);
    }
    // It cannot be mapped for writing.
    assert_eq!(refusal(memory_file(1 << 16, SealFlags::SHRINK | SealFlags::WRITE)), Errno::PERM);
}

#[test]
fn a_size_that_is_no_multiple_of_a_page_is_adopted() {
    let segment = Segment::adopt(memory_file(5, SealFlags::SHRINK)).unwrap();
    assert_eq!(segment.size(), 5);
    segment.write_at(0, b"12345").unwrap();
    assert_eq!(segment.write_at(1, b"12345"), Err(Errno::INVAL));
    assert!(segment.word(0).is_none());
}

#[test]
fn filling_fresh_memory_is_prepared_for() {
    let mut memory = vec![0_u8; 9 << 20];
    py_shared::prepare(&mut memory[1..]);
    py_shared::prepare(&mut memory[..10]);
    py_shared::prepare(&mut []);
    assert!(memory.iter().all(|byte| *byte == 0));
}
