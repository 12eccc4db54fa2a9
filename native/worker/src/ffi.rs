//! All of this crate's `unsafe`.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use py_shared::Segment;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::segments::Lease;

/// Where the launcher leaves the ways to the BEAM.
const REQUESTS: i32 = 3;
const ANSWERS: i32 = 4;
const CONTROL: i32 = 5;

/// The ways to the BEAM: requests, answers, control.
pub struct Ways {
    pub requests: OwnedFd,
    pub answers: OwnedFd,
    pub control: OwnedFd,
}

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Ways {
    /// Once in a process, and only in one that the launcher started.
    pub fn take() -> Option<Self> {
        let open = |fd: i32| {
            // SAFETY: asks for a flag, which no descriptor minds.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) == 0 }
        };
        if TAKEN.swap(true, Ordering::SeqCst) || ![REQUESTS, ANSWERS, CONTROL].into_iter().all(open) {
            return None;
        }
        // SAFETY: they are open, the launcher left them to us, and nobody else takes them.
        unsafe {
            libc::pthread_atfork(None, None, Some(forked));
            Some(Ways {
                requests: OwnedFd::from_raw_fd(REQUESTS),
                answers: OwnedFd::from_raw_fd(ANSWERS),
                control: OwnedFd::from_raw_fd(CONTROL),
            })
        }
    }
}

/// A child of `fork` is no worker. While it held these, nobody would see that the worker is dead.
extern "C" fn forked() {
    for fd in [REQUESTS, ANSWERS, CONTROL] {
        // SAFETY: close is async-signal-safe. The child has copies of values that name them, in threads
        // that it does not have.
        unsafe { libc::close(fd) };
    }
}

/// Signals are for the main thread.
pub fn block_signals() {
    // SAFETY: a set on the stack, filled before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// The first `len` bytes of a segment that is lent to us.
pub fn bytes(segment: &Segment, len: usize) -> &[u8] {
    let bytes = segment.view(0, len).unwrap_or_default();
    // SAFETY: bytes are laid out as atomic ones are, and the BEAM, the only other process that has this
    // memory, does not write a segment until it was told that it is returned.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

/// What a `memoryview` on a segment of the BEAM's refers to.
#[pyclass(frozen, module = "erlang")]
pub struct SharedMemory {
    lease: Arc<Lease>,
    begin: usize,
    len: usize,
}

impl SharedMemory {
    pub fn new(lease: Arc<Lease>, begin: usize, len: usize) -> Self {
        SharedMemory { lease, begin, len }
    }
}

#[pymethods]
impl SharedMemory {
    /// # Safety
    /// Python calls this, with a view to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: i32) -> PyResult<()> {
        let this = slf.get();
        let bytes = &this.lease.bytes()[this.begin..][..this.len];
        let (start, len) = (bytes.as_ptr().cast_mut().cast(), bytes.len() as ffi::Py_ssize_t);
        // SAFETY: the view takes a reference to this object, which keeps the memory; nobody writes
        // through it, since it says that it is read-only.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 1, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}

/// What Python calls when it loads this file as `_erlang`.
#[unsafe(no_mangle)]
pub extern "C" fn PyInit__erlang() -> *mut ffi::PyObject {
    py_core::native_module_init()
}
