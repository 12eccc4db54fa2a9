//! What a wire provides: requests that can be read, replies that can be sent, a host to talk to.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pyo3::prelude::*;

use crate::interpreter::Interpreter;
use crate::request::Request;
use crate::scheduler::Canceller;
use crate::ticket::Ticket;

/// Why a request has no value, for every reason but a Python exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Timeout,
    Cancelled,
    Overloaded,
    Encode,
    Decode,
    Crashed,
    Stopped,
    Starting,
    /// An object is not where it is used.
    NotAvailable,
    /// It is in another worker process of the pool: the message is that one's number.
    Elsewhere,
}

impl Kind {
    /// The name in `%Py.Error{kind: ...}`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Timeout => "timeout",
            Kind::Cancelled => "cancelled",
            Kind::Overloaded => "overloaded",
            Kind::Encode => "encode",
            Kind::Decode => "decode",
            Kind::Crashed => "crashed",
            Kind::Stopped => "stopped",
            Kind::Starting => "starting",
            Kind::NotAvailable => "not_available",
            Kind::Elsewhere => "elsewhere",
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

/// The group leader of a caller, as far as two of them can be told apart cheaply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Leader {
    /// A process of this node, by the word that names it.
    Local(u64),
    /// A process elsewhere: compared by nothing, set anew each time.
    Remote,
}

/// One request as it crossed the wire, and the way back. [`Ticket`] sees to it that a caller gets
/// exactly one answer.
///
/// [`Ticket`]: crate::Ticket
pub trait Wire: Send + Sync {
    /// Who asks, as a number: callers take turns.
    fn caller(&self) -> u64;

    /// What the other side calls the request, where it may ask for its end by that.
    fn id(&self) -> u64 {
        0
    }

    /// The external term format of a tuple, the caller's pid and what it calls the request, where they are
    /// known here.
    fn caller_etf(&self) -> Option<Vec<u8>> {
        None
    }

    /// Called once, by the thread that runs the request.
    fn read<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Result<Request<'py>, Fault>;

    fn leader(&self) -> Leader;

    /// The external term format of the leader's pid.
    fn leader_etf(&self) -> Vec<u8>;

    /// What is asked, for people: `math.sqrt`.
    fn subject(&self) -> String;

    /// Sends the answer. Called at most once.
    fn send(&self, outcome: Outcome<'_, '_>);

    /// Makes an answer whose making takes its time, while `goes_on` says so, and what sends it. That is
    /// called at most once, and dropped where another answer was first.
    fn prepare<'a>(&'a self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) -> Box<dyn FnOnce() + 'a>;

    /// The request is about to wait for something: whoever looks for its answer need not.
    fn lingers(&self) {}

    /// The request is a coroutine: no thread is busy with it any more.
    fn awaits(&self) {}

    /// Takes the request back, which did not begin to run, since no thread is free for it soon. Called
    /// at most once, and only where the host says so.
    fn give_back(&self) {}

    /// Has the request cancelled when the caller dies; false where it is dead already. Called at
    /// most once, and only for requests that have been pending for a while.
    fn monitor(&self, canceller: Canceller) -> bool;
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

    /// Says that nobody waits for the answer to a question any more.
    fn forget(&self, number: u64);

    /// Where the main thread gets its requests by itself; None where others submit them.
    fn inbox(&self) -> Option<&dyn Inbox> {
        None
    }
}

/// The way in and out of a process of which Python is all there is.
pub trait Inbox: Send + Sync {
    /// Waits for requests and submits them. May come back without any, and does when it is woken.
    fn wait(&self, woken: &AtomicBool);

    /// Ends a wait. To be called when its `woken` is set.
    fn wake(&self);

    /// A request that is to be next, before those in line. With `linger` it is waited for, as long as it
    /// takes who was just answered to ask again: a few microseconds, with Python's lock held.
    fn urgent(&self, linger: bool) -> Option<Arc<Ticket>>;

    /// Submits what came while the main thread was at something else, and still is.
    fn look(&self);

    /// All threads are at requests that take long; or one of them is back. To be noted only: it is told
    /// with the next tick or answer.
    fn crowded(&self, crowded: bool);

    /// Called about once a millisecond while there is something in progress.
    fn tick(&self);

    /// A thread does not come back from a request that was to stop.
    fn give_up(&self);
}

pub enum Address<'a> {
    Pid(&'a [u8]),
    Name(&'a str),
}
