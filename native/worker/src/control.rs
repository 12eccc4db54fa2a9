//! The way to a process whose Python is busy: a thread that needs no GIL.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::etf::Malformed;
use crate::ffi;
use crate::frames::{self, Fields, incoming};
use crate::inbox::Inbox;
use crate::request::Question;

pub fn spawn(inbox: &'static Inbox, socket: OwnedFd) -> std::io::Result<()> {
    let listen = move || {
        ffi::block_signals();
        listen(inbox, &socket);
        // The BEAM is gone, or wants us to be.
        crate::leave();
    };
    std::thread::Builder::new().name("py-control".into()).spawn(listen).map(drop)
}

fn listen(inbox: &'static Inbox, socket: &OwnedFd) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        match rustix::io::read(socket, &mut chunk) {
            Ok(0) => return,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let (frames, used) = frames::split(&bytes);
        if frames.into_iter().any(|frame| obey(inbox, frame).is_err()) {
            return;
        }
        bytes.drain(..used);
    }
}

fn obey(inbox: &'static Inbox, frame: &[u8]) -> Result<(), Malformed> {
    let mut fields = Fields(frame);
    match fields.u8()? {
        incoming::CANCEL => inbox.cancel(fields.u64()?),
        incoming::STACKS => {
            let pool = inbox.pool.get().ok_or(Malformed)?;
            pool.tell_stacks(pool.ticket(Question::new(inbox.out, fields.u64()?), None));
        }
        _ => return Err(Malformed),
    }
    Ok(())
}
