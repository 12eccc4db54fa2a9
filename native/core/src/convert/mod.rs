//! The type table: values of the other side to Python ([`to_python`]) and back ([`from_python`]).
//!
//! A wire reads and writes plain tokens; everything that the table says is in these two files and,
//! for what Python tells better itself, in `erlang/_types.py`.

mod from_python;
#[cfg(not(feature = "limited"))]
mod quick;
mod request;
mod to_python;

use std::fmt::Write as _;
use std::sync::Arc;

use pyo3::types::PyBytes;
use pyo3::{Bound, Py, PyAny, PyResult};

pub use from_python::{Number, from_python, is_plain, number};
#[cfg(not(feature = "limited"))]
pub use quick::{FEW, Plain, quick};
pub use request::{Verb, request, subject, value};

pub use crate::ffi::View;
use crate::memory::Memory;
use crate::wire::{Fault, Kind};

/// What is said of terms that have no value in Python.
pub mod refused {
    pub const IMPROPER: &str = "an improper list has no Python value; pass a proper list, or a tuple";
    pub const BITSTRING: &str = "a bitstring that is no binary has no Python value; pad it to whole bytes";
    pub const NOT_BINARY: &str = "Py.bytes/1 and Py.buffer/1 take a binary";
}

/// How deep a value may nest, in either direction. Deeper ones are refused, cyclic ones with them.
pub const MAX_DEPTH: usize = 10_000;

/// From this size on, in bytes, `bytes` are handed out without a copy.
pub const SHARED_FROM: usize = 64 * 1024;

/// What a value of the other side is, one step at a time: after `List(n)` follow `n` values, after
/// `Map(n)` and `Struct(n)` `n` pairs.
pub enum Token<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// Sign and magnitude, least significant byte first.
    Big {
        negative: bool,
        magnitude: Vec<u8>,
    },
    Float(f64),
    Atom(u64),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// Few bytes that Python sees through a `memoryview`.
    View(&'a [u8]),
    /// The same of any number, without a copy.
    Memory(Arc<dyn Memory>),
    /// What the reader made itself.
    Made(PyResult<Py<PyAny>>),
    List(usize),
    Tuple(usize),
    Map(usize),
    Struct(usize),
    Opaque(Opaque, Vec<u8>),
    /// There is no such value in Python; the text says what it is and what to do.
    Refused(&'static str),
}

/// Terms that Python only passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    Pid,
    Reference,
    Port,
    /// Python calls it, and can make none itself.
    Function,
}

pub trait Read {
    fn next(&mut self) -> Token<'_>;

    /// As `next`, where a name is expected: an atom is one, whatever it means elsewhere.
    fn name(&mut self) -> Token<'_>;

    /// Called when the elements of a list were read.
    fn end_list(&mut self) {}

    /// The name of an atom that `next` gave.
    fn atom_text(&self, id: u64) -> String;
}

/// Builds a value of the other side from tokens: after `list(n)` come `n` values, then `end_list(n)`.
pub trait Write {
    /// A value that was written, to be written again: rows of a table have the same keys.
    type Written: Copy;

    /// The value written last, where the other side can share it.
    fn last(&self) -> Option<Self::Written>;
    fn again(&mut self, value: Self::Written);

    fn none(&mut self);
    fn bool(&mut self, value: bool);
    fn int(&mut self, value: i64);
    /// False where the other side cannot hold a number of this size.
    fn big(&mut self, negative: bool, magnitude: &[u8]) -> bool;
    fn float(&mut self, value: f64);
    /// False where there is no such atom.
    fn atom(&mut self, name: &str) -> bool;
    fn binary(&mut self, bytes: &[u8]);
    /// A binary on the memory of these bytes.
    fn shared_binary(&mut self, bytes: Py<PyBytes>, len: usize);
    /// A binary of what a view shows.
    fn view(&mut self, view: View) {
        self.binary(view.as_slice());
    }

    /// A pid, reference or port. False where the bytes are none: Python code can make them up.
    fn opaque(&mut self, etf: &[u8]) -> bool;
    /// What has the object live as long as the other side has it. The number is its own, where it has one.
    fn handle(&mut self, object: &Bound<'_, PyAny>, number: Option<u64>);
    /// A function, as it came. False where there is no such function any more.
    fn function(&mut self, etf: &[u8]) -> bool;
    fn list(&mut self, len: usize);
    fn end_list(&mut self, len: usize);
    fn tuple(&mut self, len: usize);
    fn end_tuple(&mut self, len: usize);
    fn map(&mut self, len: usize);
    /// Called before and after each key of a map.
    fn begin_key(&mut self) {}
    fn end_key(&mut self) {}
    /// False where two keys became one.
    fn end_map(&mut self, len: usize) -> bool;
}

/// Why a value cannot cross, and where in it the trouble is: the path grows outwards while the
/// conversion unwinds, so values that cross pay nothing for it.
#[derive(Debug)]
pub struct Refusal {
    message: String,
    path: Vec<String>,
    /// Where that is not what whoever converts says.
    kind: Option<Kind>,
}

impl Refusal {
    pub fn new(message: impl Into<String>) -> Self {
        Refusal { message: message.into(), path: Vec::new(), kind: None }
    }

    fn of_kind(self, kind: Kind) -> Self {
        Refusal { kind: Some(kind), ..self }
    }

    fn within(mut self, step: impl FnOnce() -> String) -> Self {
        // A value nested thousands deep has a path that nobody reads to the end.
        if self.path.len() < 32 {
            self.path.push(step());
        }
        self
    }

    pub fn into_fault(self, kind: Kind, root: &str) -> Fault {
        let kind = self.kind.unwrap_or(kind);
        if kind == Kind::Elsewhere {
            return Fault::new(kind, self.message);
        }
        let mut message = String::from(root);
        for step in self.path.iter().rev() {
            message.push_str(step);
        }
        let _ = write!(message, ": {}", self.message);
        Fault::new(kind, message)
    }
}
