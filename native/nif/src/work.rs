//! Requests as terms.

use std::sync::Arc;

use py_core::convert::{self, Refusal};
use py_core::wire::Leader;
use py_core::{Call, Fault, Interpreter, Kind, Request, Source, Work};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use rustler::{Binary, Term};

use crate::ffi::{self, Elements, Letter};
use crate::terms::{TermReader, etf};
use crate::{atoms, reply};

/// The indexes of the leader and the request in the letter of a request; the first is the tag.
pub const LEADER: usize = reply::TAG + 1;
pub const REQUEST: usize = LEADER + 1;

pub struct TermWork {
    letter: Arc<Letter>,
}

impl TermWork {
    pub fn new(letter: Arc<Letter>) -> Self {
        TermWork { letter }
    }
}

impl Work for TermWork {
    fn read<'py>(self: Box<Self>, py: Python<'py>, interpreter: &Interpreter) -> Result<Request<'py>, Fault> {
        Parser { py, interpreter }.request(self.letter.term(REQUEST))
    }

    fn leader(&self) -> Leader {
        leader(self.letter.term(LEADER))
    }

    fn leader_etf(&self) -> Vec<u8> {
        etf(self.letter.term(LEADER))
    }
}

/// A pid of this node is one word, which names it.
fn leader(term: Term<'_>) -> Leader {
    match term.decode::<rustler::LocalPid>() {
        Ok(_) => Leader::Local(ffi::word(term)),
        Err(_) => Leader::Remote,
    }
}

struct Parser<'py, 'a> {
    py: Python<'py>,
    interpreter: &'a Interpreter,
}

impl<'py> Parser<'py, '_> {
    fn request(&self, term: Term<'_>) -> Result<Request<'py>, Fault> {
        let parts: Vec<_> = Elements::of(term).map(Iterator::collect).unwrap_or_default();
        match &parts[..] {
            [tag, target, name, arguments, keywords] if atoms::call() == *tag => {
                self.call(*target, *name, *arguments, *keywords).map(Request::Call)
            }
            [tag, code, variables, file, line] if atoms::eval() == *tag => {
                self.source(*code, *variables, *file, *line).map(Request::Eval)
            }
            [tag, code, variables, file, line] if atoms::exec() == *tag => {
                self.source(*code, *variables, *file, *line).map(Request::Exec)
            }
            [tag, target, name] if atoms::getattr() == *tag => Ok(Request::GetAttr {
                target: self.name(*target, "target")?,
                name: self.name(*name, "name")?,
            }),
            [tag, module] if atoms::reload() == *tag => {
                Ok(Request::Reload { module: self.name(*module, "module")? })
            }
            _ => Err(Fault::new(Kind::Encode, "no such request")),
        }
    }

    fn call(
        &self,
        target: Term<'_>,
        name: Term<'_>,
        arguments: Term<'_>,
        keywords: Term<'_>,
    ) -> Result<Call<'py>, Fault> {
        let (py, interpreter) = (self.py, self.interpreter);
        let target = self.name(target, "target")?;
        let name = self.name(name, "name")?;
        let mut arguments = convert::arguments(py, interpreter, &mut TermReader::new(arguments))
            .map_err(|refusal| refused(refusal, "args"))?;
        let keywords = convert::keywords(py, interpreter, &mut TermReader::new(keywords), &mut arguments)
            .map_err(|refusal| refused(refusal, "kwargs"))?;
        Ok(Call { target, name, arguments, keywords })
    }

    fn source(
        &self,
        code: Term<'_>,
        variables: Term<'_>,
        file: Term<'_>,
        line: Term<'_>,
    ) -> Result<Source<'py>, Fault> {
        let variables = convert::variables(self.py, self.interpreter, &mut TermReader::new(variables))
            .map_err(|refusal| refused(refusal, "vars"))?;
        let file = if atoms::nil() == file { None } else { Some(self.text(file, "file")?) };
        Ok(Source { code: self.text(code, "code")?, variables, file, line: line.decode().unwrap_or(1) })
    }

    /// A name is an atom or text.
    fn name(&self, term: Term<'_>, what: &str) -> Result<Bound<'py, PyString>, Fault> {
        if !term.is_atom() {
            return self.text(term, what);
        }
        let id = atoms::id(term);
        let name = self.interpreter.name_of(self.py, id, || atoms::text(id));
        name.map_err(|error| Fault::new(Kind::Encode, format!("{what}: {error}")))
    }

    fn text(&self, term: Term<'_>, what: &str) -> Result<Bound<'py, PyString>, Fault> {
        let binary = Binary::from_term(term)
            .map_err(|_| Fault::new(Kind::Encode, format!("{what}: expected an atom or a string")))?;
        self.interpreter
            .text(self.py, binary.as_slice())
            .map_err(|_| Fault::new(Kind::Encode, format!("{what}: it is not valid UTF-8")))
    }
}

fn refused(refusal: Refusal, root: &str) -> Fault {
    refusal.into_fault(Kind::Encode, root)
}

/// What a pool needs before it serves.
pub struct StartWork {
    pub letter: Arc<Letter>,
    pub init: Option<String>,
    pub file: Option<String>,
    pub line: i64,
    pub paths: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl Work for StartWork {
    fn read<'py>(self: Box<Self>, py: Python<'py>, _: &Interpreter) -> Result<Request<'py>, Fault> {
        let env = PyDict::new(py);
        for (name, value) in &self.env {
            env.set_item(name, value).map_err(|error| Fault::new(Kind::Encode, format!("env: {error}")))?;
        }
        let init = self.init.as_ref().map(|code| Source {
            code: PyString::new(py, code),
            variables: PyDict::new(py),
            file: self.file.as_ref().map(|file| PyString::new(py, file)),
            line: self.line,
        });
        Ok(Request::Start { init, paths: self.paths.clone(), env })
    }

    fn leader(&self) -> Leader {
        leader(self.letter.term(LEADER))
    }

    fn leader_etf(&self) -> Vec<u8> {
        etf(self.letter.term(LEADER))
    }
}
