//! The process that was started and all that came of it.

use std::sync::{Mutex, PoisonError};

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, kill_process_group, wait,
    waitid, waitpid,
};

use crate::linux;

/// The leader of a process group that is a child of ours. Until it is reaped its number is not given to another one.
pub struct Leader {
    pid: Pid,
    ended: Mutex<Option<WaitStatus>>,
}

impl Leader {
    pub fn new(pid: Pid) -> Self {
        Leader { pid, ended: Mutex::new(None) }
    }

    /// Reaps whatever ends, orphans that became ours too, up to the leader itself.
    pub fn reap(&self) {
        while self.status().is_none() {
            let next = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let _ = retry_on_intr(|| waitid(WaitId::All, next));
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => *ended = Some(status),
                // Somebody else reaped it, which cannot be.
                Err(Errno::CHILD) => return,
                _ => {}
            }
        }
    }

    pub fn status(&self) -> Option<WaitStatus> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn kill(&self) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// Kills what is left below us, whatever sessions it made, until there is nothing.
///
/// The children of one that ends are ours before we can reap it, and our children stay to be seen until we do: when a
/// look finds none, there is none. What may not be killed (it became another user) is left alone.
pub fn end_descendants() {
    while children_left() {
        let killed = linux::children().into_iter().filter(|&pid| kill_process(pid, Signal::KILL).is_ok());
        let reaped = killed.filter(|&pid| retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty())).is_ok());
        if reaped.count() == 0 {
            return;
        }
    }
}

fn children_left() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::All, look), Err(Errno::CHILD))
}
