//! The way to a process whose Python is busy: a thread that needs no GIL.

use std::os::fd::OwnedFd;

use py_shared::NotReceived;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::etf::Malformed;
use crate::ffi;
use crate::frames::{Fields, incoming};
use crate::inbox::Inbox;
use crate::request::Question;

/// After so long without a word there is time to look for what is not needed.
const QUIET: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

pub fn spawn(inbox: &'static Inbox) -> std::io::Result<()> {
    let listen = move || {
        ffi::block_signals();
        listen(inbox);
        // The BEAM is gone, or wants us to be.
        crate::leave();
    };
    std::thread::Builder::new().name("py-control".into()).spawn(listen)?;
    // The launcher has asked for this thread to be killed when the BEAM is gone. From here on all that we
    // started goes with us, for which we must live, and run if we were stopped.
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::CONT))?)
}

fn listen(inbox: &'static Inbox) {
    let socket = inbox.segments.control();
    loop {
        if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&QUIET)) == Ok(0) {
            inbox.segments.tidy(inbox.out);
            continue;
        }
        match py_shared::receive_fd(socket) {
            Ok((frame, file)) => {
                if obey(inbox, &frame, file).is_err() {
                    return;
                }
            }
            Err(NotReceived::System(Errno::AGAIN | Errno::INTR)) => {}
            Err(_) => return,
        }
    }
}

fn obey(inbox: &'static Inbox, frame: &[u8], file: Option<OwnedFd>) -> Result<(), Malformed> {
    let mut fields = Fields(frame);
    match fields.u8()? {
        incoming::CANCEL => inbox.cancel(fields.u64()?),
        incoming::STACKS => {
            let pool = inbox.pool.get().ok_or(Malformed)?;
            pool.tell_stacks(pool.ticket(Question::new(inbox, fields.u64()?), None));
        }
        incoming::SEGMENT => inbox.segments.adopt(fields.u32()?, file.ok_or(Malformed)?)?,
        incoming::RETURNED => inbox.segments.take_back(inbox.out, fields.u32()?),
        incoming::DROPPED => inbox.segments.forget(fields.u32()?),
        _ => return Err(Malformed),
    }
    Ok(())
}
