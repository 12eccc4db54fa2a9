//! What only Linux has.

use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::ffi;

/// Connects to a stream socket of the abstract namespace, which belongs to no file and goes with its listener.
pub fn connect_abstract(name: &[u8]) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
    Ok(socket)
}

/// Closes what was inherited from this number on.
pub fn close_from(first: RawFd) -> io::Result<()> {
    // Collected first: reading the folder opens a file itself.
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    open.into_iter().filter(|&fd| fd >= first).for_each(ffi::close);
    Ok(())
}
