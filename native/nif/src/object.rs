//! References to objects of Python's.

use py_core::Interpreter;
use py_core::convert::Token;
use pyo3::prelude::*;
use rustler::{Atom, Resource};

/// Keeps an object for as long as the BEAM refers to it.
pub struct ObjectResource {
    /// Taken when it is dropped.
    object: Option<Py<PyAny>>,
    interpreter: &'static Interpreter,
    /// Whose it is, where that is known.
    pub pool: Option<Atom>,
}

#[rustler::resource_impl]
impl Resource for ObjectResource {}

impl ObjectResource {
    pub fn new(object: &Bound<'_, PyAny>, interpreter: &'static Interpreter, pool: Option<Atom>) -> Self {
        ObjectResource { object: Some(object.clone().unbind()), interpreter, pool }
    }

    /// For a reader on a thread of Python's.
    pub fn token(&self) -> Token<'static> {
        let object = Python::attach(|py| self.object.as_ref().map(|object| object.clone_ref(py)));
        Token::Made(Ok(object.expect("it is there until it is dropped")))
    }
}

impl Drop for ObjectResource {
    /// The garbage collector runs this on a scheduler, which must not wait for the GIL.
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.interpreter.release(object);
        }
    }
}
