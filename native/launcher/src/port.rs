//! The pipes of an Erlang port opened with `{:packet, 4}`. A packet is a kind, one byte, and data; the same kinds are in
//! lib/py/script/runner.ex.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::ffi;

/// What the node says.
pub mod command {
    pub const STDIN: u8 = 1;
    pub const STDIN_END: u8 = 2;
    pub const KILL: u8 = 3;
}

/// What the node is told.
pub mod event {
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    pub const WANTS_STDIN: u8 = 3;
    pub const EXITED: u8 = 4;
    pub const SIGNALED: u8 = 5;
    pub const NOT_STARTED: u8 = 6;
    pub const TOO_MUCH: u8 = 7;
}

const LENGTH: usize = 4;
const HEADER: usize = LENGTH + 1;
const CHUNK: usize = 64 << 10;

/// A kind and its data.
pub type Packet = (u8, Vec<u8>);

pub struct Port {
    commands: File,
    events: File,
    received: Vec<u8>,
    /// Room for a packet, so that data is read to where it is written from.
    packet: Vec<u8>,
}

impl Port {
    /// The pipes that the node gave; to be taken once.
    pub fn inherited() -> io::Result<Self> {
        let (commands, events) = ffi::inherited_pipes()?;
        Ok(Port {
            commands: commands.into(),
            events: events.into(),
            received: Vec::new(),
            packet: vec![0; HEADER + CHUNK],
        })
    }

    pub fn commands(&self) -> BorrowedFd<'_> {
        self.commands.as_fd()
    }

    /// What has come: `None` at the end of file.
    pub fn receive(&mut self) -> io::Result<Option<Vec<Packet>>> {
        let size = self.commands.read(&mut self.packet)?;
        self.received.extend_from_slice(&self.packet[..size]);
        if size == 0 { Ok(None) } else { Ok(Some(self.complete())) }
    }

    fn complete(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Some((length, rest)) = self.received.split_first_chunk::<LENGTH>() {
            let Some(packet) = rest.get(..u32::from_be_bytes(*length) as usize) else { break };
            let size = LENGTH + packet.len();
            packets.extend(packet.split_first().map(|(&kind, data)| (kind, data.to_vec())));
            self.received.drain(..size);
        }
        packets
    }

    pub fn send(&mut self, kind: u8, data: &[u8]) -> io::Result<()> {
        let size = data.len().min(CHUNK);
        self.packet[HEADER..HEADER + size].copy_from_slice(&data[..size]);
        self.write(kind, size)
    }

    /// Passes on what one read gives, of more than `most` bytes the first, and tells how much it was; 0 is the end of
    /// file.
    pub fn relay(&mut self, kind: u8, source: &mut impl Read, most: usize) -> io::Result<usize> {
        let size = source.read(&mut self.packet[HEADER..])?;
        if size.min(most) > 0 {
            self.write(kind, size.min(most))?;
        }
        Ok(size)
    }

    fn write(&mut self, kind: u8, size: usize) -> io::Result<()> {
        self.packet[..LENGTH].copy_from_slice(&(size as u32 + 1).to_be_bytes());
        self.packet[LENGTH] = kind;
        self.events.write_all(&self.packet[..HEADER + size])
    }

    /// Returns when the node has closed the port. To end before it does would cost it the packets that it has not read:
    /// a port that writes to a closed pipe ends at once.
    pub fn wait_for_close(&mut self) {
        while matches!(self.receive(), Ok(Some(_))) {}
    }
}
