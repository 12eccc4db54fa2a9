//! All of this crate's `unsafe`.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::null_mut;

const SIGNALS: libc::c_int = 64;

/// Signals as a program expects them: none blocked, none ignored. The node ignores some, and so do the programs
/// between it and us. SIGPIPE is left to the standard library, which ignores it here and not in what it starts.
pub fn default_signals() {
    for signal in (1..=SIGNALS).filter(|&signal| signal != libc::SIGPIPE) {
        // SAFETY: takes away handlers and installs none; numbers that may not be changed are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    unblock_signals();
}

fn unblock_signals() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that the other call reads.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), null_mut());
    }
}

/// Gives a file the number at which what is started expects it; nothing here may own that number.
pub fn move_to(fd: OwnedFd, number: RawFd) -> io::Result<()> {
    // SAFETY: takes numbers, which it checks.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// What a port gives with `:nouse_stdio`: where to read and where to write, neither of which is passed on.
pub fn inherited_pipes() -> io::Result<(OwnedFd, OwnedFd)> {
    for fd in [3, 4] {
        // SAFETY: takes a number, which it checks.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: both are open, and are asked for once, before anything else is opened.
    unsafe { Ok((OwnedFd::from_raw_fd(3), OwnedFd::from_raw_fd(4))) }
}

/// Has a command enter a session of its own, and be limited, before it begins.
pub fn prepare(command: &mut Command, memory_limit: Option<u64>) {
    let prepare = move || {
        rustix::process::setsid()?;
        crate::linux::die_with_parent()?;
        memory_limit.map_or(Ok(()), crate::limits::limit_memory)
    };
    // SAFETY: it runs between fork and exec, and makes system calls only.
    unsafe { command.pre_exec(prepare) };
}

/// Closes a number that was inherited and that nothing here owns.
pub fn close(fd: RawFd) {
    // SAFETY: takes a number, which it checks.
    unsafe { libc::close(fd) };
}

/// Ends this process by a signal, and without another core file: who died of it first has left one.
pub fn die(signal: i32) -> io::Error {
    unblock_signals();
    // SAFETY: plain system calls, which check what they are given.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    io::Error::last_os_error()
}
