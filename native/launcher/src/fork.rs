//! `fork`: has the template of a pool fork a worker, and ends as that does.
//!
//! The worker gets what a worker is started with: the port's pipes, an output and a control socket. It is a child of
//! the template, which tells how it ended.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use py_shared::send_fd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::arguments::Arguments;
use crate::worker::{self, Sockets};
use crate::{ffi, linux};

/// What the template says, with four bytes. `native/worker/src/template.rs` is the other half.
const BORN: u8 = b'b';
const EXITED: u8 = b'e';
const KILLED: u8 = b'k';
const NOT_FORKED: u8 = b'n';

enum End {
    Exited(u8),
    Killed(i32),
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let Sockets { output, control } = worker::report(arguments)?;
    worker::redirect(&output).map_err(|error| format!("cannot set up: {error}"))?;
    let template = hand_over(arguments.program.as_bytes(), &output, &control)
        .map_err(|error| format!("cannot reach the template: {error}"))?;
    drop((output, control));
    match wait(&mut template.into())? {
        End::Exited(code) => Ok(ExitCode::from(code)),
        End::Killed(signal) => Err(format!("cannot end by signal {signal}: {}", ffi::die(signal))),
    }
}

/// All that makes a worker; nothing of it is kept.
fn hand_over(name: &[u8], output: &OwnedFd, control: &OwnedFd) -> io::Result<OwnedFd> {
    let template = linux::connect_abstract(name)?;
    let (requests, answers) = ffi::inherited_pipes()?;
    let files = [("requests", &requests), ("answers", &answers), ("output", output), ("control", control)];
    for (role, file) in files {
        send_fd(&template, role.as_bytes(), file.as_fd())?;
    }
    Ok(template)
}

fn wait(template: &mut File) -> Result<End, String> {
    let mut worker = None;
    let mut message = [0; 5];
    while template.read_exact(&mut message).is_ok() {
        let [what, a, b, c, d] = message;
        let number = i32::from_be_bytes([a, b, c, d]);
        match what {
            BORN => worker = Pid::from_raw(number).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()),
            EXITED => return Ok(End::Exited(number as u8)),
            KILLED => return Ok(End::Killed(number)),
            NOT_FORKED => {
                return Err(format!("the template cannot fork: {}", io::Error::from_raw_os_error(number)));
            }
            _ => break,
        }
    }
    outlive(worker)
}

/// The template is gone, and with it who could tell how a worker ends; that it ends can be seen.
fn outlive(worker: Option<OwnedFd>) -> Result<End, String> {
    let Some(worker) = worker else { return Err("the template ended".into()) };
    while poll(&mut [PollFd::new(&worker, PollFlags::IN)], None) == Err(Errno::INTR) {}
    Err("the worker ended after its template, which would have told how".into())
}
