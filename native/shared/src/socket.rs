//! How a file is handed to another process: over a unix stream socket, with a few bytes that tell what
//! it is.
//!
//! A frame is the length of the header in one byte, and the header: what `gen_tcp` calls `packet: 1`,
//! so frames without a file may come from there. It is sent whole or not at all, because the kernel
//! never splits so few bytes.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{Errno, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};

/// The longest header.
pub const HEADER_MAX: usize = u8::MAX as usize;

/// Why nothing was received.
#[derive(Debug, PartialEq, Eq)]
pub enum NotReceived {
    /// The other end is closed.
    Closed,
    /// What came is not a frame, came with more than one file, or its file could not be taken because
    /// this process has too many.
    Malformed,
    /// `EAGAIN` where the socket does not block.
    System(Errno),
}

impl From<Errno> for NotReceived {
    fn from(errno: Errno) -> Self {
        // That is how the end is told where something was still on its way to the other side.
        if errno == Errno::CONNRESET { NotReceived::Closed } else { NotReceived::System(errno) }
    }
}

/// Sends a header and a file, of which the receiver gets a descriptor of its own; `EMSGSIZE` where the
/// header is longer than `HEADER_MAX`, `EAGAIN` where the socket is full and does not block.
pub fn send_fd(socket: impl AsFd, header: &[u8], file: BorrowedFd<'_>) -> Result<()> {
    let length = [u8::try_from(header.len()).map_err(|_| Errno::MSGSIZE)?];
    let files = [file];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    let frame = [IoSlice::new(&length), IoSlice::new(header)];
    let sent = sendmsg(socket, &frame, &mut control, SendFlags::NOSIGNAL)?;
    if sent == 1 + header.len() { Ok(()) } else { Err(Errno::IO) }
}

/// Receives a header, and the file that came with it. After `Malformed` nobody knows where the next
/// frame starts: the socket is of no use any longer.
pub fn receive_fd(socket: impl AsFd) -> std::result::Result<(Vec<u8>, Option<OwnedFd>), NotReceived> {
    let length = peek_length(&socket)?;
    let mut bytes = [0; 1 + HEADER_MAX];
    let (frame, _) = bytes.split_at_mut(1 + length);
    let expected = frame.len();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(frame)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = files(&mut control);
    let whole = received.bytes == expected && !received.flags.contains(ReturnFlags::CTRUNC);
    if whole && files.len() < 2 {
        Ok((frame[1..].to_vec(), files.pop()))
    } else {
        Err(NotReceived::Malformed)
    }
}

/// What is read must end with the frame: the kernel would go on with the next one, and lose its file.
fn peek_length(socket: impl AsFd) -> std::result::Result<usize, NotReceived> {
    let mut length = [0];
    match recv(socket, &mut length, RecvFlags::PEEK)?.0 {
        0 => Err(NotReceived::Closed),
        _ => Ok(length[0].into()),
    }
}

fn files(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => files.collect(),
            _ => Vec::new(),
        })
        .collect()
}
