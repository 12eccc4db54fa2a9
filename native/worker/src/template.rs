//! A template: a process that has run `init`, and is forked into the workers of its pool.
//!
//! Only what a process with one thread does can be forked, so nothing here starts one: that the BEAM is gone
//! comes as a signal, and the ends of children as events of their pidfds.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use py_core::boot;
use py_shared::receive_fd;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, send,
    socket_with,
};
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, geteuid, getpid, pidfd_open, setsid, waitid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::gettid;

use crate::Process;
use crate::etf::Malformed;
use crate::ffi;
use crate::frames::{Fields, incoming, outgoing};
use crate::outbox::Frame;
use crate::request::{Body, Start};

/// What a launcher is told: one of these and four bytes. `native/launcher/src/fork.rs` is the other half.
const BORN: u8 = b'b';
const EXITED: u8 = b'e';
const KILLED: u8 = b'k';
const NOT_FORKED: u8 = b'n';

const BACKLOG: i32 = 1024;

/// A launcher sends all it has to send at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// A thread that has ended for those who wait for it is still there for the kernel, for a moment.
const MOMENTS: u32 = 20;
const MOMENT: Duration = Duration::from_millis(1);

const THREADS: &str = "after it there are threads, which a fork would lose";

/// A thread: its number and its name.
pub type Task = (i32, String);

/// Runs `init`, and then forks. Comes back in each worker, which has its own ways to the BEAM.
pub fn run(py: Python<'_>, process: &Process, name: &str, prepare: &Bound<'_, PyAny>) -> PyResult<()> {
    ffi::end_with_control()?;
    crate::say_hello(py, process.inbox.out);
    process.inbox.out.flush();
    rehearse(py, process).map_err(|_| PyRuntimeError::new_err("the BEAM sent what is no start"))?;
    let listener = open(name)?;
    let obstacle = obstacle(py, prepare)?;
    process.inbox.out.put(&Frame::new(outgoing::FORKS).bytes(obstacle.as_bytes()));
    process.inbox.out.flush();
    Template { listener, children: Vec::new() }.work(py, process)
}

fn rehearse(py: Python<'_>, process: &Process) -> Result<(), Malformed> {
    let frame = process.inbox.first();
    let mut fields = Fields(&frame);
    if fields.u8()? != incoming::START {
        return Err(Malformed);
    }
    let (id, deadline) = (fields.u64()?, fields.u64()?);
    let start = Start::new(process.inbox, None, id, Body::new(fields.0)?);
    boot::rehearse(py, process.interpreter, &process.pool.ticket(start, crate::left(deadline)));
    Ok(())
}

/// Why this process cannot be forked; empty where it can.
fn obstacle(py: Python<'_>, prepare: &Bound<'_, PyAny>) -> PyResult<String> {
    if pidfd_open(getpid(), PidfdFlags::empty()).is_err() {
        return Ok("this kernel has no pidfd_open".into());
    }
    let tasks = py.detach(ffi::tasks_at_fork)?;
    let names: String = prepare.call1((tasks,))?.extract()?;
    Ok(if names.is_empty() { names } else { format!("{THREADS}: {names}") })
}

/// The threads beside the calling one.
pub fn other_tasks() -> Vec<Task> {
    for _ in 0..MOMENTS {
        if tasks().is_empty() {
            break;
        }
        std::thread::sleep(MOMENT);
    }
    tasks()
}

fn tasks() -> Vec<Task> {
    let own = gettid().as_raw_nonzero().get();
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let named = |task| {
        fs::read_to_string(format!("/proc/self/task/{task}/comm")).map(|name| (task, name.trim().into()))
    };
    numbers.filter(|task| *task != own).filter_map(|task| named(task).ok()).collect()
}

fn open(name: &str) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

struct Template {
    listener: OwnedFd,
    children: Vec<Child>,
}

struct Child {
    pidfd: OwnedFd,
    launcher: OwnedFd,
}

/// The files of a worker to be.
struct Files {
    requests: OwnedFd,
    answers: OwnedFd,
    output: OwnedFd,
    control: OwnedFd,
}

impl Template {
    /// Comes back in children. What the template keeps goes with it.
    fn work(mut self, py: Python<'_>, process: &Process) -> PyResult<()> {
        loop {
            self.wait(process);
            self.reap();
            while let Ok(launcher) = accept_with(&self.listener, SocketFlags::CLOEXEC) {
                // Anybody on this machine may connect.
                let Ok(files) = Files::receive(&launcher) else { continue };
                if self.fork(py, launcher)? {
                    return Ok(files.take_over(process)?);
                }
            }
        }
    }

    /// Until there is something to do. The control socket is looked at by a signal's handler, and here too.
    fn wait(&self, process: &Process) {
        let files = [process.inbox.segments.control(), &self.listener].into_iter();
        let files = files.chain(self.children.iter().map(|child| &child.pidfd));
        let mut files: Vec<_> = files.map(|file| PollFd::new(file, PollFlags::IN)).collect();
        let _ = poll(&mut files, None);
        if !files[0].revents().is_empty() {
            drain(process.inbox.segments.control());
        }
    }

    fn reap(&mut self) {
        self.children.retain(|child| match waitid(WaitId::PidFd(child.pidfd.as_fd()), REAP) {
            Ok(None) | Err(Errno::INTR) => true,
            Ok(Some(status)) => {
                tell_end(&child.launcher, &status);
                false
            }
            // Code of the user's has waited for it.
            Err(_) => false,
        });
    }

    /// True in the child.
    fn fork(&mut self, py: Python<'_>, launcher: OwnedFd) -> PyResult<bool> {
        ffi::flush_streams();
        ffi::bear_workers();
        let pid = py.import("os")?.call_method0("fork").and_then(|pid| pid.extract::<i32>());
        ffi::bear_no_workers();
        match pid.map(Pid::from_raw) {
            Ok(None) => return Ok(true),
            Ok(Some(pid)) => {
                tell(&launcher, BORN, pid.as_raw_nonzero().get());
                let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
                self.children.push(Child { pidfd, launcher });
            }
            Err(error) => tell(&launcher, NOT_FORKED, errno(py, &error)),
        }
        Ok(false)
    }
}

const REAP: WaitIdOptions = WaitIdOptions::EXITED.union(WaitIdOptions::NOHANG);

fn drain(control: &OwnedFd) {
    match rustix::io::read(control, &mut [0; 64]) {
        Ok(1..) | Err(Errno::INTR) => {}
        _ => crate::leave(),
    }
}

fn tell_end(launcher: &OwnedFd, status: &WaitIdStatus) {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => tell(launcher, EXITED, code),
        (None, Some(signal)) => tell(launcher, KILLED, signal),
        (None, None) => {}
    }
}

/// A launcher that is gone need not be told.
fn tell(launcher: &OwnedFd, what: u8, number: i32) {
    let [a, b, c, d] = number.to_be_bytes();
    let _ = send(launcher, &[what, a, b, c, d], SendFlags::NOSIGNAL);
}

fn errno(py: Python<'_>, error: &PyErr) -> i32 {
    error.value(py).getattr("errno").and_then(|errno| errno.extract()).unwrap_or(0)
}

impl Files {
    fn receive(launcher: &OwnedFd) -> io::Result<Self> {
        if socket_peercred(launcher)?.uid != geteuid() {
            return Err(Errno::PERM.into());
        }
        set_socket_timeout(launcher, Timeout::Recv, Some(PATIENCE))?;
        let receive = |role: &str| match receive_fd(launcher) {
            Ok((header, Some(file))) if header == role.as_bytes() => Ok(file),
            _ => Err(io::Error::from(Errno::INVAL)),
        };
        Ok(Files {
            requests: receive("requests")?,
            answers: receive("answers")?,
            output: receive("output")?,
            control: receive("control")?,
        })
    }

    /// In a child: makes a worker of it.
    fn take_over(self, process: &Process) -> io::Result<()> {
        setsid()?;
        ffi::forget_control_signal();
        dup2_stdin(rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?;
        dup2_stdout(&self.output)?;
        dup2_stderr(&self.output)?;
        process.inbox.reopen(self.requests)?;
        process.inbox.out.reopen(self.answers)?;
        ffi::replace(process.inbox.segments.control(), &self.control)?;
        // It is for the template what it is for a worker, and was seen to there.
        process.inbox.first();
        Ok(())
    }
}
