//! Everything of Py that touches Python and knows no BEAM.
//!
//! A *wire* brings [`Job`]s and takes their answers: the NIF is one. What a wire has to provide is
//! in [`wire`]; what it may use is [`Interpreter`] and [`Pool`].

pub mod boot;
pub mod convert;
mod errand;
mod ffi;
mod interpreter;
mod request;
mod runner;
mod scheduler;
mod ticket;
mod watch;
pub mod wire;

pub use ffi::{LocalKey, reset_signals_in_forked_children};
pub use interpreter::Interpreter;
pub use request::{Call, Request, Source};
pub use scheduler::{Limits, Pool, PoolInfo, Refusal};
pub use ticket::{Cancel, Ticket};
pub use wire::{Fault, Job, Kind, Outcome, Reply, Work};
