//! Requests from processes, and what a pool needs before it serves.

use std::sync::Weak;

use py_core::convert::{self, Verb};
use py_core::wire::Leader;
use py_core::{Answer, Canceller, Fault, Interpreter, Kind, Outcome, Pool, Request, Source, Wire};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use rustler::{LocalPid, Term};

use crate::atoms;
use crate::ffi::{self, Elements, Letter};
use crate::foreign;
use crate::reply::Caller;
use crate::tape::{self, Limits, Tape};
use crate::terms::{TermReader, etf};

/// A request of a process.
pub struct Call {
    caller: Caller,
    leader: GroupLeader,
    record: Record,
}

/// What was asked, taken out of the process that asks.
enum Record {
    Tape(Tape),
    Letter(Verb, Letter),
}

impl Call {
    /// A small request; gives the caller back where it is not.
    pub fn small(caller: Caller, leader: Term<'_>, verb: Verb, request: Term<'_>) -> Result<Self, Caller> {
        let tape = parts(request).and_then(|parts| Tape::record(verb, parts, &tape::SMALL));
        match tape {
            Some(tape) => Ok(Call::new(caller, leader, Record::Tape(tape))),
            None => Err(caller),
        }
    }

    /// Any request without a struct that is foreign; what is beyond the limits is copied as terms.
    pub fn any(
        caller: Caller,
        leader: Term<'_>,
        verb: Verb,
        request: Term<'_>,
        limits: &Limits,
    ) -> Option<Self> {
        let tape = parts(request).and_then(|parts| Tape::record(verb, parts, limits));
        let record = match tape {
            Some(tape) => Record::Tape(tape),
            None if foreign::is_in(request) => return None,
            None => Record::Letter(verb, Letter::copy(&[request])),
        };
        Some(Call::new(caller, leader, record))
    }

    fn new(caller: Caller, leader: Term<'_>, record: Record) -> Self {
        Call { caller, leader: GroupLeader::of(leader), record }
    }
}

impl Wire for Call {
    fn caller(&self) -> u64 {
        self.caller.word()
    }

    fn caller_etf(&self) -> Option<Vec<u8>> {
        self.caller.etf()
    }

    fn read<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Result<Request<'py>, Fault> {
        match &self.record {
            Record::Tape(tape) => convert::request(py, interpreter, tape.verb(), &mut tape.play()),
            Record::Letter(verb, letter) => {
                convert::request(py, interpreter, *verb, &mut reader(letter.term(0)))
            }
        }
    }

    fn leader(&self) -> Leader {
        self.leader.leader()
    }

    fn leader_etf(&self) -> Vec<u8> {
        self.leader.etf()
    }

    fn subject(&self) -> String {
        match &self.record {
            Record::Tape(tape) => convert::subject(tape.verb(), &mut tape.play()),
            Record::Letter(verb, letter) => convert::subject(*verb, &mut reader(letter.term(0))),
        }
    }

    fn send(&self, outcome: Outcome<'_, '_>) {
        self.caller.answer(outcome);
    }

    fn prepare<'a>(&'a self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) -> Box<dyn FnOnce() + 'a> {
        Box::new(self.caller.prepare(outcome, goes_on))
    }

    fn monitor(&self, canceller: Canceller) -> bool {
        self.caller.monitor(canceller)
    }
}

/// What a request is, if it is one: its first element says it, the others are its parts.
pub fn verb(request: Term<'_>) -> Option<(Verb, Elements<'_>)> {
    let mut elements = Elements::of(request)?;
    let (count, first) = (elements.len(), elements.next()?);
    let verbs = [
        (atoms::call(), 5, Verb::Call),
        (atoms::eval(), 5, Verb::Eval),
        (atoms::exec(), 5, Verb::Exec),
        (atoms::getattr(), 3, Verb::GetAttr),
        (atoms::reload(), 2, Verb::Reload),
        (atoms::within(), 3, Verb::Within),
    ];
    let verb = verbs.into_iter().find(|(name, arity, _)| *name == first && *arity == count)?;
    Some((verb.2, elements))
}

fn parts(request: Term<'_>) -> Option<Elements<'_>> {
    let mut elements = Elements::of(request)?;
    elements.next()?;
    Some(elements)
}

pub fn reader(request: Term<'_>) -> TermReader<'_> {
    TermReader::new(parts(request).expect("it was looked at when it was taken"))
}

/// The process that gets what is printed.
pub enum GroupLeader {
    /// A pid of this node is one word.
    Local(u64),
    Remote(Vec<u8>),
}

impl GroupLeader {
    pub fn of(term: Term<'_>) -> Self {
        match term.decode::<LocalPid>() {
            Ok(_) => GroupLeader::Local(ffi::word(term)),
            Err(_) => GroupLeader::Remote(etf(term)),
        }
    }

    pub fn leader(&self) -> Leader {
        match self {
            GroupLeader::Local(word) => Leader::Local(*word),
            GroupLeader::Remote(_) => Leader::Remote,
        }
    }

    pub fn etf(&self) -> Vec<u8> {
        match self {
            GroupLeader::Local(word) => ffi::etf_of_word(*word),
            GroupLeader::Remote(etf) => etf.clone(),
        }
    }
}

/// What a pool needs before it serves.
pub struct Start {
    pub caller: Caller,
    pub leader: GroupLeader,
    pub pool: Weak<Pool>,
    pub init: Option<String>,
    pub file: Option<String>,
    pub line: i64,
    pub paths: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl Wire for Start {
    fn caller(&self) -> u64 {
        self.caller.word()
    }

    fn read<'py>(&self, py: Python<'py>, _: &Interpreter) -> Result<Request<'py>, Fault> {
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
        self.leader.leader()
    }

    fn leader_etf(&self) -> Vec<u8> {
        self.leader.etf()
    }

    fn subject(&self) -> String {
        String::from("init")
    }

    /// The pool is open before its owner hears of it.
    fn send(&self, outcome: Outcome<'_, '_>) {
        if let (Outcome::Done, Some(pool)) = (&outcome, self.pool.upgrade()) {
            pool.opened();
        }
        self.caller.answer(outcome);
    }

    fn prepare<'a>(&'a self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) -> Box<dyn FnOnce() + 'a> {
        Box::new(self.caller.prepare(outcome, goes_on))
    }

    fn monitor(&self, canceller: Canceller) -> bool {
        self.caller.monitor(canceller)
    }
}

/// What the BEAM answers Python code: the one element of a tuple.
pub struct Answered(Letter);

fn no_answer() -> Fault {
    Fault::new(Kind::Encode, "what was to be an answer is none")
}

impl Answered {
    pub fn copy(answer: Term<'_>) -> Self {
        Answered(Letter::copy(&[answer]))
    }
}

impl Answer for Answered {
    fn read<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Result<Bound<'py, PyAny>, Fault> {
        let parts = Elements::of(self.0.term(0)).ok_or_else(no_answer)?;
        convert::value(py, interpreter, &mut TermReader::new(parts))
    }
}

/// What is answered about the pool itself, and never runs.
pub struct Question(pub Caller);

impl Wire for Question {
    fn caller(&self) -> u64 {
        self.0.word()
    }

    fn read<'py>(&self, _: Python<'py>, _: &Interpreter) -> Result<Request<'py>, Fault> {
        Err(Fault::new(Kind::Encode, "a question is no request"))
    }

    fn leader(&self) -> Leader {
        Leader::Local(self.0.word())
    }

    fn leader_etf(&self) -> Vec<u8> {
        ffi::etf_of_word(self.0.word())
    }

    fn subject(&self) -> String {
        String::from("stacktrace")
    }

    fn send(&self, outcome: Outcome<'_, '_>) {
        self.0.answer(outcome);
    }

    fn prepare<'a>(&'a self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) -> Box<dyn FnOnce() + 'a> {
        Box::new(self.0.prepare(outcome, goes_on))
    }

    fn monitor(&self, canceller: Canceller) -> bool {
        self.0.monitor(canceller)
    }
}
