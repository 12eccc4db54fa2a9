//! What a wire provides: requests that can be read, replies that can be sent, a host to talk to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::interpreter::Interpreter;
use crate::request::Request;
use crate::ticket::Ticket;

/// Why a request has no value, for every reason but a Python exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Timeout,
    Cancelled,
    Encode,
    Decode,
    Crashed,
    Stopped,
    Starting,
}

impl Kind {
    /// The name in `%Py.Error{kind: ...}`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Timeout => "timeout",
            Kind::Cancelled => "cancelled",
            Kind::Encode => "encode",
            Kind::Decode => "decode",
            Kind::Crashed => "crashed",
            Kind::Stopped => "stopped",
            Kind::Starting => "starting",
        }
    }
}

/// An error that needs no Python to be told.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    pub message: String,
}

impl Fault {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Fault { kind, message: message.into() }
    }
}

/// How a request ended.
pub enum Outcome<'a, 'py> {
    /// It ran for its effect: `:ok`.
    Done,
    Value(&'static Interpreter, &'a Bound<'py, PyAny>),
    /// A Python exception, described by `erlang._errors.describe`.
    Raised(&'static Interpreter, &'a Bound<'py, PyAny>),
    Failed(Fault),
}

/// Where the answer goes. Whoever holds it owes the caller exactly one answer: [`Ticket`] sees to it.
pub trait Reply: Send {
    fn send(self: Box<Self>, outcome: Outcome<'_, '_>);

    /// Nobody is to get an answer: the caller asked for that, or is dead.
    fn discard(self: Box<Self>);

    /// Has the ticket's pool told when the caller dies; false where it is dead already. Called at
    /// most once, and only for requests that have been pending for a while.
    fn monitor(&self, ticket: &Arc<Ticket>) -> bool;
}

/// The group leader of a caller, as far as two of them can be told apart cheaply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Leader {
    /// A process of this node, by the word that names it.
    Local(u64),
    /// A process elsewhere: compared by nothing, set anew each time.
    Remote,
}

/// The request as it crossed the wire.
pub trait Work: Send {
    fn read<'py>(self: Box<Self>, py: Python<'py>, interpreter: &Interpreter) -> Result<Request<'py>, Fault>;

    fn leader(&self) -> Leader;

    /// The external term format of the leader's pid.
    fn leader_etf(&self) -> Vec<u8>;
}

pub struct Job {
    pub ticket: Arc<Ticket>,
    pub work: Box<dyn Work>,
}

impl Job {
    pub fn new(reply: Box<dyn Reply>, work: Box<dyn Work>, timeout: Option<Duration>) -> Self {
        let ticket = Arc::new(Ticket::new(reply, Instant::now(), timeout));
        Job { ticket, work }
    }
}

/// The other side, as Python code may address it.
pub trait Host: Send + Sync {
    /// Sends a message; false where nobody is there. `to` is an `erlang.Pid` or a registered name.
    fn send(
        &self,
        interpreter: &'static Interpreter,
        to: Address<'_>,
        message: &Bound<'_, PyAny>,
    ) -> Result<bool, Fault>;
}

pub enum Address<'a> {
    Pid(&'a [u8]),
    Name(&'a str),
}
