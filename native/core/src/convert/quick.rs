//! The calls that mind each nanosecond: a function that was called before, with a few plain values.
//! What they need of the type table, on the same terms, and without a request being made of them.

use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt};

use crate::ffi;
use crate::interpreter::Interpreter;
use crate::request::Arguments;
use crate::routes::Key;

/// So many arguments, at most.
pub const FEW: usize = ffi::FEW;

#[derive(Clone, Copy)]
pub enum Plain<'a> {
    Int(i64),
    Float(f64),
    Text(&'a [u8]),
}

/// Calls what two atoms name; None where that has to go the way of all others, who find it and tell
/// what is wrong.
pub fn quick<'py>(
    py: Python<'py>,
    interpreter: &Interpreter,
    key: Key,
    plain: &[Plain<'_>],
) -> Option<PyResult<Bound<'py, PyAny>>> {
    let callable = interpreter.routes.find(py, key)?;
    let mut arguments = Arguments::new();
    for value in plain {
        arguments.push(match *value {
            Plain::Int(value) => PyInt::new(py, value).into_any(),
            Plain::Float(value) => PyFloat::new(py, value).into_any(),
            Plain::Text(bytes) => ffi::utf8(py, bytes).ok()?.into_any(),
        });
    }
    Some(ffi::vectorcall(&callable, &arguments, None))
}
