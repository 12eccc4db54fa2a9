//! `worker`: becomes a worker process of a pool.
//!
//! The worker finds the port's pipes as 3 and 4, its control socket as 5, its output socket as 1 and 2, and nothing to
//! read as 0.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::arguments::Arguments;
use crate::{ffi, limits, linux};

const CONTROL: RawFd = 5;
const TOKEN: &str = "PY_TOKEN";
const CANNOT_START: u8 = 127;

/// Connections to the node.
pub struct Sockets {
    pub output: OwnedFd,
    pub control: OwnedFd,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let memory_limit = arguments.number("--memory-limit")?;
    let sockets = report(arguments)?;
    become_worker(sockets, memory_limit).map_err(|error| format!("cannot set up: {error}"))?;
    let error = arguments.command().env_remove(TOKEN).exec();
    eprintln!("py_launcher: cannot start {}: {error}", arguments.program.display());
    Ok(ExitCode::from(CANNOT_START))
}

/// Tells the node that the worker of the token is there.
pub fn report(arguments: &Arguments) -> Result<Sockets, String> {
    let socket = arguments.option("--socket").ok_or("--socket is missing")?.as_bytes();
    let token = env::var(TOKEN).map_err(|_| format!("{TOKEN} is not set"))?;
    linux::close_from(CONTROL).map_err(|error| format!("cannot close what was inherited: {error}"))?;
    let connect = |role| connect(socket, &token, role).map_err(|error| format!("cannot connect: {error}"));
    Ok(Sockets { output: connect("output")?, control: connect("control")? })
}

/// The first line tells the listener whose connection it is, and of which kind: as many bytes for each kind.
fn connect(name: &[u8], token: &str, role: &str) -> io::Result<OwnedFd> {
    let mut socket = File::from(linux::connect_abstract(name)?);
    socket.write_all(format!("{token} {role:7}\n").as_bytes())?;
    Ok(socket.into())
}

/// Nothing to read, and what is printed goes to the node.
pub fn redirect(output: &OwnedFd) -> io::Result<()> {
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(output)?;
    Ok(dup2_stderr(output)?)
}

fn become_worker(Sockets { output, control }: Sockets, memory_limit: Option<u64>) -> io::Result<()> {
    redirect(&output)?;
    // Either socket may have the number that the control socket is to have.
    let above = fcntl_dupfd_cloexec(&control, CONTROL + 1)?;
    drop((output, control));
    ffi::move_to(above, CONTROL)?;
    match setsid() {
        // The leader of a group, which erl_child_setup makes of us, has a session of its own already.
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    ffi::default_signals();
    // For as long as the worker does not listen by itself.
    linux::die_with_parent()?;
    limits::raise_stack()?;
    memory_limit.map_or(Ok(()), limits::limit_memory)
}
