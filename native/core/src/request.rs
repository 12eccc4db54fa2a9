//! What can be asked of an interpreter.

use pyo3::exceptions::{PyModuleNotFoundError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use smallvec::SmallVec;

use crate::ffi;
use crate::interpreter::Interpreter;
use crate::routes::{Function, Names};

pub enum Request<'py> {
    Call(Call<'py>),
    GetAttr(Function<'py>),
    Eval(Source<'py>),
    Exec(Source<'py>),
    Reload {
        module: Bound<'py, PyString>,
    },
    /// Another one, in a context that it brings along: see `erlang/_context.py`.
    Within {
        request: Box<Request<'py>>,
        context: Bound<'py, PyDict>,
    },
    /// What a pool runs before it serves.
    Start {
        init: Option<Source<'py>>,
        paths: Vec<String>,
        env: Bound<'py, PyDict>,
    },
}

/// Most calls have few arguments: these take no memory of their own.
pub type Arguments<'py> = SmallVec<[Bound<'py, PyAny>; ffi::FEW]>;

pub struct Call<'py> {
    pub function: Function<'py>,
    /// Positional ones, then the values of `keywords`.
    pub arguments: Arguments<'py>,
    pub keywords: Option<Bound<'py, PyTuple>>,
}

pub struct Source<'py> {
    pub code: Bound<'py, PyString>,
    pub variables: Bound<'py, PyDict>,
    pub file: Option<Bound<'py, PyString>>,
    pub line: i64,
}

impl<'py> Request<'py> {
    /// True where the caller wants to know only that it was done.
    pub fn is_for_effect(&self) -> bool {
        match self {
            Request::Within { request, .. } => request.is_for_effect(),
            request => matches!(request, Request::Exec(_) | Request::Start { .. }),
        }
    }

    /// Runs it in the namespace of `pool`. What comes back may be a coroutine that is to be awaited.
    pub fn run(
        &self,
        py: Python<'py>,
        interpreter: &Interpreter,
        pool: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Request::Call(call) => {
                let callable = resolve(py, interpreter, pool, &call.function)?;
                ffi::vectorcall(&callable, &call.arguments, call.keywords.as_ref())
            }
            Request::GetAttr(function) => resolve(py, interpreter, pool, function),
            Request::Eval(source) => interpreter.run_code(py, pool, source, true, None),
            Request::Exec(source) => interpreter.run_code(py, pool, source, false, None),
            Request::Reload { module } => interpreter.reload(py, module),
            Request::Start { init, paths, env } => {
                interpreter.start_pool(py, pool, init.as_ref(), paths, env)
            }
            Request::Within { request, context } => {
                let value = request.run_within(py, interpreter, pool, context)?;
                if ffi::is_coroutine(&value) { interpreter.await_within(context, &value) } else { Ok(value) }
            }
        }
    }

    fn run_within(
        &self,
        py: Python<'py>,
        interpreter: &Interpreter,
        pool: usize,
        context: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Request::Call(call) => {
                let callable = resolve(py, interpreter, pool, &call.function)?;
                let callable = interpreter.within(context, &callable)?;
                ffi::vectorcall(&callable, &call.arguments, call.keywords.as_ref())
            }
            Request::Eval(source) => interpreter.run_code(py, pool, source, true, Some(context)),
            Request::Exec(source) => interpreter.run_code(py, pool, source, false, Some(context)),
            Request::GetAttr(function) => {
                interpreter.same_within(context, &resolve(py, interpreter, pool, function)?)
            }
            request => request.run(py, interpreter, pool),
        }
    }
}

/// `target.name`, where `target` is a module and `name` may be dotted.
fn resolve<'py>(
    py: Python<'py>,
    interpreter: &Interpreter,
    pool: usize,
    function: &Function<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let names = match function {
        Function::Found(found) => return Ok(found.clone()),
        Function::Named(names) => names,
        Function::Of(object, name) => return attribute(object, name),
    };
    let Names { target, name, .. } = names;
    let base = interpreter.base_named(py, pool, target);
    let is_base = base.is_some();
    let module = match base {
        Some(base) => base,
        None => interpreter.import(py, target)?,
    };
    let text = named(name)?;
    if !text.contains('.') {
        // Names of this kind may be found in the type of modules first.
        if !is_base && !text.starts_with("__") {
            interpreter.routes.keep(names, &module);
        }
        return module.getattr(name);
    }
    text.split('.').try_fold(module, |object, part| object.getattr(part))
}

fn named<'a>(name: &'a Bound<'_, PyString>) -> PyResult<&'a str> {
    match name.to_str()? {
        "" => Err(PyTypeError::new_err("the name of a function or attribute is empty")),
        text => Ok(text),
    }
}

fn attribute<'py>(object: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    let text = named(name)?;
    if !text.contains('.') {
        return object.getattr(name);
    }
    text.split('.').try_fold(object.clone(), |object, part| object.getattr(part))
}

/// A module whose name cannot be one, told in the words of the import system.
pub fn no_such_module(name: &str) -> PyErr {
    PyModuleNotFoundError::new_err(format!("No module named {name:?}"))
}
