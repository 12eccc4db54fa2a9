//! All of this crate's `unsafe`.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use py_shared::Segment;
use pyo3::ffi;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::template::Task;

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
            libc::pthread_atfork(Some(about_to_fork), None, Some(forked));
            Some(Ways {
                requests: OwnedFd::from_raw_fd(REQUESTS),
                answers: OwnedFd::from_raw_fd(ANSWERS),
                control: OwnedFd::from_raw_fd(CONTROL),
            })
        }
    }
}

/// What a child of `fork` is to be: nothing of ours, unless a template makes a worker of it.
static BEARS_WORKERS: AtomicBool = AtomicBool::new(false);

/// The children to come are workers, which give the ways to the BEAM other ends.
pub fn bear_workers() {
    BEARS_WORKERS.store(true, Ordering::SeqCst);
}

/// The children to come are not.
pub fn bear_no_workers() {
    BEARS_WORKERS.store(false, Ordering::SeqCst);
}

/// Ends this process alone, without what Python does in the end.
pub fn end_child(status: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(status) }
}

/// A child of `fork` is no worker. While it held these, nobody would see that the worker is dead.
extern "C" fn forked() {
    if BEARS_WORKERS.load(Ordering::SeqCst) {
        return;
    }
    py_core::fork::become_child();
    for fd in [REQUESTS, ANSWERS, CONTROL] {
        // SAFETY: close is async-signal-safe. The child has copies of values that name them, in threads
        // that it does not have.
        unsafe { libc::close(fd) };
    }
}

/// What `about_to_fork` found, where somebody wants to know.
static SEEN_AT_FORK: Mutex<Option<Vec<Task>>> = Mutex::new(None);
static LOOKS_AT_FORK: AtomicBool = AtomicBool::new(false);

/// Handlers of this kind run in the order opposite to that in which they were installed: those of libraries
/// that came later, and end their own threads for a fork, have run.
extern "C" fn about_to_fork() {
    if LOOKS_AT_FORK.load(Ordering::SeqCst) {
        *SEEN_AT_FORK.lock().unwrap_or_else(PoisonError::into_inner) = Some(crate::template::other_tasks());
    }
}

/// The threads that there are beside the calling one when a process is forked, found by forking one.
pub fn tasks_at_fork() -> io::Result<Vec<Task>> {
    LOOKS_AT_FORK.store(true, Ordering::SeqCst);
    // SAFETY: the child does nothing but end, beside what libraries have each child do.
    let child = unsafe {
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => libc::_exit(0),
            child => Ok(child),
        }
    };
    LOOKS_AT_FORK.store(false, Ordering::SeqCst);
    let _ = waitpid(Pid::from_raw(child?), WaitOptions::empty());
    Ok(SEEN_AT_FORK.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default())
}

/// Lets a descriptor that somebody owns name another file.
pub fn replace(fd: &OwnedFd, file: &OwnedFd) -> io::Result<()> {
    // SAFETY: the number goes on to be open, and owned by whoever owns it.
    match unsafe { libc::dup3(file.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Writes what the C library's own streams hold.
pub fn flush_streams() {
    // SAFETY: null stands for all of them.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// The signal by which the kernel says that something is with the control socket of a process that has no
/// thread to read it.
fn control_signal() -> i32 {
    libc::SIGRTMIN() + 8
}

/// Has this process end as soon as the other end of its control socket is closed, whatever it is at.
pub fn end_with_control() -> io::Result<()> {
    // SAFETY: the handler calls what may be called in one; the descriptor is open, and a closed one would be
    // refused.
    let asked = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = look_at_control as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(control_signal(), &action, std::ptr::null_mut()) == 0
            && libc::fcntl(CONTROL, libc::F_SETOWN, libc::getpid()) == 0
            && libc::fcntl(CONTROL, F_SETSIG, control_signal()) == 0
            && libc::fcntl(CONTROL, libc::F_SETFL, libc::O_ASYNC | libc::fcntl(CONTROL, libc::F_GETFL)) == 0
    };
    if !asked {
        return Err(io::Error::last_os_error());
    }
    // It may have been closed before.
    look_at_control(0);
    Ok(())
}

/// fcntl.h has it, the libc crate does not.
const F_SETSIG: i32 = 10;

extern "C" fn look_at_control(_: i32) {
    // SAFETY: these are async-signal-safe; `errno` is what it was when the interrupted code goes on.
    unsafe {
        let errno = *libc::__errno_location();
        let mut byte = 0_u8;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let count = libc::recv(CONTROL, (&raw mut byte).cast(), 1, flags);
        let waits = [libc::EAGAIN, libc::EINTR].contains(&*libc::__errno_location());
        if count == 0 || (count < 0 && !waits) {
            libc::kill(0, libc::SIGKILL);
        }
        *libc::__errno_location() = errno;
    }
}

/// From here on a thread reads the control socket.
pub fn forget_control_signal() {
    // SAFETY: takes a handler away.
    unsafe { libc::signal(control_signal(), libc::SIG_DFL) };
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

/// What Python calls when it loads this file as `_erlang`.
#[unsafe(no_mangle)]
pub extern "C" fn PyInit__erlang() -> *mut ffi::PyObject {
    py_core::native_module_init()
}
