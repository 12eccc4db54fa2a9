//! The ends of a program's standard files that are here. None of them is ever waited for.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ChildStdin;

use rustix::io::ioctl_fionbio;

use crate::port::{Port, event};

/// What the program is still to read.
pub struct Input {
    pipe: ChildStdin,
    pending: Vec<u8>,
    complete: bool,
    asked: bool,
}

pub enum Fed {
    /// There is more than the program took, or more was asked for already.
    Waits,
    WantsMore,
    Complete,
}

impl Input {
    pub fn new(pipe: ChildStdin) -> io::Result<Self> {
        ioctl_fionbio(&pipe, true)?;
        Ok(Input { pipe, pending: Vec::new(), complete: false, asked: false })
    }

    pub fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn add(&mut self, data: &[u8]) {
        self.pending.extend_from_slice(data);
        self.asked = false;
    }

    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// An error is that of a program that reads no more.
    pub fn write(&mut self) -> io::Result<Fed> {
        match self.pipe.write(&self.pending) {
            Ok(size) => drop(self.pending.drain(..size)),
            Err(error) if is_later(&error) => {}
            Err(error) => return Err(error),
        }
        if self.is_waiting() {
            return Ok(Fed::Waits);
        }
        let asked = std::mem::replace(&mut self.asked, true);
        Ok(if self.complete {
            Fed::Complete
        } else if asked {
            Fed::Waits
        } else {
            Fed::WantsMore
        })
    }
}

/// What the program prints on one of its files.
pub struct Output {
    event: u8,
    pipe: Option<File>,
    /// How many bytes it may still print; `None` when it printed more.
    left: Option<usize>,
}

impl Output {
    pub fn new(event: u8, pipe: Option<impl Into<OwnedFd>>, limit: usize) -> io::Result<Self> {
        let pipe: Option<File> = pipe.map(|pipe| pipe.into().into());
        pipe.iter().try_for_each(|pipe| ioctl_fionbio(pipe, true))?;
        Ok(Output { event, pipe, left: Some(limit) })
    }

    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    pub fn overran(&self) -> bool {
        self.left.is_none()
    }

    /// Passes on one piece: was there one, and may there be another?
    pub fn relay(&mut self, port: &mut Port) -> io::Result<bool> {
        let (Some(pipe), Some(left)) = (&mut self.pipe, self.left) else { return Ok(false) };
        match port.relay(self.event, pipe, left) {
            Ok(0) => self.pipe = None,
            Ok(size) => {
                self.left = left.checked_sub(size);
                if self.overran() {
                    self.pipe = None;
                    port.send(event::TOO_MUCH, &[self.event])?;
                }
            }
            Err(error) if is_later(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(self.pipe.is_some())
    }

    /// Passes on all that is there.
    pub fn relay_rest(&mut self, port: &mut Port) -> io::Result<()> {
        while self.relay(port)? {}
        Ok(())
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
