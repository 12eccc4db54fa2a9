//! What crosses the pipes: a length in four bytes, what it is in one, then its fields; all numbers
//! with their most significant byte first. `lib/py/worker/frame.ex` is the other half.

use crate::etf::Malformed;

/// From the BEAM.
pub mod incoming {
    /// Who we are to be: a tuple in external term format. The first frame.
    pub const CONFIGURE: u8 = 1;
    /// What the pool needs before it serves: id, deadline, a tuple.
    pub const START: u8 = 2;
    /// Verb, id, deadline, a tuple: the group leader of the caller and the parts of the request.
    pub const REQUEST: u8 = 3;
    /// Added to the verb where large binaries of the answer are not to be copied.
    pub const MAPPED: u8 = 0x80;
    /// As a request, but the tuple is in a segment: the segment's number, how long the tuple is.
    pub const SHARED_REQUEST: u8 = 9;

    /// Number of a question of Python code's, a tuple of the answer.
    pub const ANSWER: u8 = 10;

    // On the control socket, whose frames have their length in one byte:

    /// Id of a request.
    pub const CANCEL: u8 = 4;
    /// Id. Answered as a request is.
    pub const STACKS: u8 = 5;
    /// Number of a segment of the BEAM's, which comes along.
    pub const SEGMENT: u8 = 6;
    /// Number of a segment of ours, which may be used again.
    pub const RETURNED: u8 = 7;
    /// Number of a segment of the BEAM's that there is no more.
    pub const DROPPED: u8 = 8;
}

/// To the BEAM.
pub mod outgoing {
    /// Id, nanoseconds that it ran, `:ok`, `{:ok, value}` or `{:error, error}`.
    pub const REPLY: u8 = 1;
    /// Id, nanoseconds that it ran, a tuple: kind and message of an error that is not Python's.
    pub const FAULT: u8 = 2;
    /// Id of a request that did not begin, and may run elsewhere.
    pub const GIVEN_BACK: u8 = 3;
    /// Id of a request that is a coroutine, and keeps no thread busy any more.
    pub const AWAITS: u8 = 4;
    /// A message of Python code's: 0 for a pid or 1 for a name, and 2 more where there are references to
    /// objects in it; its length in two bytes, it, the message.
    pub const SEND: u8 = 5;
    /// 1 where all threads are at calls that take long, 0 where one is free again.
    pub const CROWDED: u8 = 6;
    /// Our process, in four bytes, and the version of Python: we are ready for `START`.
    pub const HELLO: u8 = 7;
    /// A call does not stop: this process is about to end.
    pub const STUCK: u8 = 8;
    /// As an answer, but what is answered is in a segment of ours: number and length of it.
    pub const SHARED_REPLY: u8 = 9;
    /// As that, but large binaries are behind the answer, in which an improper list of two numbers says of each
    /// where and how long: number of the segment, length of the answer, where they begin.
    pub const MAPPED_REPLY: u8 = 15;
    /// Number of a segment of the BEAM's, which was read and may be used again.
    pub const RETURNED: u8 = 10;
    /// Number of a segment of ours that there is no more.
    pub const DROPPED: u8 = 11;
    /// From a template: it forks workers from now on, or, where something is there, why it does not.
    pub const FORKS: u8 = 12;

    /// Number of a question that nobody waits for any more.
    pub const FORGET: u8 = 13;
    /// As an answer, with references to objects in it: before it their count in four bytes, and their numbers.
    pub const REFERRING_REPLY: u8 = 14;

    // On the control socket:

    /// Number of a segment of ours, which comes along.
    pub const SEGMENT: u8 = 1;
    /// What this process is at, as a segment that comes along: see `page.rs`.
    pub const PAGE: u8 = 2;
}

/// The whole frames at the beginning of `bytes`, and how many bytes they take.
pub fn split(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(head) = bytes.get(at..at + 4) {
        let len = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
        let Some(frame) = bytes.get(at + 4..at + 4 + len) else { break };
        frames.push(frame);
        at += 4 + len;
    }
    (frames, at)
}

/// Takes the fields of a frame, from the front.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let (first, rest) = self.0.split_first_chunk::<4>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*first))
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let (first, rest) = self.0.split_first_chunk::<8>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*first))
    }
}
