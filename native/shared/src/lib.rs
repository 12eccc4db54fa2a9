//! Memory that the node and its worker processes share, and how it is handed over.
//!
//! A [`Segment`] has one owner at a time: whoever wrote into it says so in a message, after which the
//! other side reads it, and says when it may be written again. Nothing here enforces that, and nothing
//! here rests on it: a process that breaks it makes the other one read bytes that are wrong, never
//! anything worse. So bytes are copied in and out, and what is lent out are atomics.
//!
//! Only Linux has what this takes.

#![cfg(target_os = "linux")]

mod ffi;
mod lane;
mod segment;
mod shelf;
mod socket;

pub use ffi::prepare;
pub use lane::{LANE_ROOM, Lane, Progress};
pub use segment::Segment;
pub use shelf::{Shelf, Taken};
pub use socket::{HEADER_MAX, NotReceived, receive_fd, send_fd};
