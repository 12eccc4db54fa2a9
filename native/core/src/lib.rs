//! Everything of Py that touches Python and knows no BEAM.
//!
//! A *wire* brings requests and takes their answers: the NIF is one. What a wire has to provide is
//! [`Wire`]; what it may use is [`Interpreter`] and [`Pool`].

pub mod boot;
mod by_word;
pub mod convert;
mod desk;
mod dlpack;
mod errand;
mod event_loop;
mod ffi;
pub mod fork;
#[cfg(not(feature = "limited"))]
mod gate;
#[cfg(feature = "limited")]
#[path = "ungated.rs"]
mod gate;
#[cfg(not(feature = "limited"))]
mod inline;
mod interpreter;
mod memory;
mod natives;
mod pool;
mod question;
mod queue;
mod release;
mod request;
mod routes;
mod runner;
mod scheduler;
#[cfg(not(feature = "limited"))]
mod stopwatch;
mod ticket;
mod watch;
pub mod wire;

pub use ffi::{LocalKey, View, native_module_init, reset_signals_in_forked_children};
#[cfg(not(feature = "limited"))]
pub use gate::Closed;
#[cfg(not(feature = "limited"))]
pub use inline::{Inline, Ran};
pub use interpreter::Interpreter;
pub use memory::{Frozen, Memory};
pub use pool::{Limits, Pool, PoolInfo, Refusal, Running};
pub use question::{Answer, Asker, Questions};
pub use request::{Call, Request, Source};
pub use scheduler::Canceller;
#[cfg(not(feature = "limited"))]
pub use stopwatch::{Lap, Took};
pub use ticket::{Cancel, Ticket};
pub use wire::{Fault, Kind, Outcome, Wire};
