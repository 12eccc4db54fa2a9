//! What only Linux has.

use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, Signal, getpid, set_child_subreaper, set_parent_process_death_signal};

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

/// Makes us the parent of what our descendants leave behind.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// In a child: it is to be killed when the thread that started it is.
pub fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Our children, dead ones included.
pub fn children() -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|&pid| parent(pid) == Some(getpid())).collect()
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may hold anything.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    Pid::from_raw(fields.nth(1)?.parse().ok()?)
}
