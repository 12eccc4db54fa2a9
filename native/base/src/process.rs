//! Signals to other processes.

use rustix::io::{Errno, Result};
use rustix::process::{
    Pid, Signal, kill_process, kill_process_group, test_kill_process, test_kill_process_group,
};
use rustler::{Encoder, Env, Error, NifResult, Term};

use crate::reason;

rustler::atoms! { ok }

/// Sends a signal to a process, or to the group of a negative number; signal 0 only asks whether it is
/// there. 0 and -1, the own group and everyone, are refused.
#[rustler::nif]
fn kill(env: Env<'_>, os_pid: i32, signal: i32) -> NifResult<Term<'_>> {
    let pid = os_pid.checked_abs().filter(|pid| *pid > 1).and_then(Pid::from_raw).ok_or(Error::BadArg)?;
    Ok(send(pid, os_pid < 0, signal).map_or_else(|errno| reason::error(env, errno), |()| ok().encode(env)))
}

fn send(pid: Pid, group: bool, signal: i32) -> Result<()> {
    let signal = match signal {
        0 => None,
        number => Some(Signal::from_named_raw(number).ok_or(Errno::INVAL)?),
    };
    match (signal, group) {
        (Some(signal), false) => kill_process(pid, signal),
        (Some(signal), true) => kill_process_group(pid, signal),
        (None, false) => test_kill_process(pid),
        (None, true) => test_kill_process_group(pid),
    }
}
