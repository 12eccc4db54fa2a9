//! All of this crate's `unsafe`.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

const SIGNALS: libc::c_int = 64;

/// Signals as a program expects them: none blocked, none ignored. The node ignores some, and so do the programs
/// between it and us. SIGPIPE is left to the standard library, which ignores it here and not in what it starts.
pub fn default_signals() {
    for signal in (1..=SIGNALS).filter(|&signal| signal != libc::SIGPIPE) {
        // SAFETY: takes away handlers and installs none; numbers that may not be changed are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
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

/// Closes a number that was inherited and that nothing here owns.
pub fn close(fd: RawFd) {
    // SAFETY: takes a number, which it checks.
    unsafe { libc::close(fd) };
}
