//! Everything of Py that touches Python and knows no BEAM.
//!
//! A *wire* brings requests and takes their answers: the NIF is one. What a wire has to provide is
//! [`Wire`]; what it may use is [`Interpreter`] and [`Pool`].

pub mod boot;
pub mod convert;
mod desk;
mod errand;
mod event_loop;
mod ffi;
mod gate;
mod inline;
mod interpreter;
mod natives;
mod pool;
mod queue;
mod request;
mod routes;
mod runner;
mod scheduler;
mod stopwatch;
mod ticket;
mod watch;
pub mod wire;

pub use ffi::{LocalKey, reset_signals_in_forked_children};
pub use gate::Closed;
pub use inline::{Inline, Ran};
pub use interpreter::Interpreter;
pub use pool::{Limits, Pool, PoolInfo, Refusal, Running};
pub use request::{Call, Request, Source};
pub use scheduler::Canceller;
pub use stopwatch::Took;
pub use ticket::{Cancel, Ticket};
pub use wire::{Fault, Kind, Outcome, Wire};
