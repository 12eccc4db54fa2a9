//! Calls on the caller's own scheduler: terms are read and built where they are.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use py_core::convert::{self, Number, Read, Token, Verb};
use py_core::wire::Leader;
use py_core::{Fault, Inline, Interpreter, Outcome, Pool, Request, Ticket};
use pyo3::prelude::*;
use rustler::{Atom, Encoder, Env, Term};

use crate::atoms;
use crate::ffi::{self, Builder};
use crate::quick::Quick;
use crate::reply::{Caller, push_result};
use crate::tape::{self, Draft};
use crate::work::{self, Call, GroupLeader};

pub struct Here<'a, 'p> {
    pub env: Env<'a>,
    pub pool: &'p Arc<Pool>,
    pub name: Atom,
    pub leader: Term<'a>,
    pub verb: Verb,
    pub request: Term<'a>,
    /// The request, where it is one of few plain values.
    pub quick: Option<&'p Quick<'a>>,
    /// Any other, where it is small: taken out of its terms before anybody waits for Python.
    pub draft: Option<Draft>,
    pub timeout: Option<Duration>,
    /// The result, or the tag of the message that brings it.
    pub result: Option<Term<'a>>,
}

impl Inline for Here<'_, '_> {
    fn function(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut reader = work::reader(self.request);
        let names = if matches!(self.verb, Verb::Call | Verb::GetAttr) { 2 } else { 1 };
        for _ in 0..names {
            match reader.name() {
                Token::Atom(id) => id.hash(&mut hasher),
                Token::Text(text) => text.hash(&mut hasher),
                _ => {}
            }
        }
        hasher.finish()
    }

    fn subject(&self) -> String {
        convert::subject(self.verb, &mut work::reader(self.request))
    }

    fn quick<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Option<PyResult<Bound<'py, PyAny>>> {
        self.quick.and_then(|quick| convert::quick(py, interpreter, quick.key, &quick.arguments))
    }

    fn is_for_effect(&self) -> bool {
        self.verb == Verb::Exec
    }

    fn read<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Result<Request<'py>, Fault> {
        match &self.draft {
            Some(draft) => convert::request(py, interpreter, self.verb, &mut draft.play()),
            None => convert::request(py, interpreter, self.verb, &mut work::reader(self.request)),
        }
    }

    fn has_leader(&self, leader: Leader) -> bool {
        // The word of a pid of this node is that of nothing else.
        matches!(leader, Leader::Local(word) if word == ffi::word(self.leader))
    }

    fn leader(&self) -> Leader {
        GroupLeader::of(self.leader).leader()
    }

    fn leader_etf(&self) -> Vec<u8> {
        GroupLeader::of(self.leader).etf()
    }

    fn send(&mut self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) {
        let number = if let Outcome::Value(_, value) = outcome { convert::number(value) } else { None };
        self.result = Some(match number {
            Some(Number::Int(int)) => (atoms::ok(), int).encode(self.env),
            Some(Number::Float(float)) => (atoms::ok(), float).encode(self.env),
            None => {
                let mut builder = Builder::here(self.env);
                push_result(&mut builder, outcome, Some(self.name), goes_on);
                builder.finish(self.env)
            }
        });
    }

    fn defer(&mut self) -> Arc<Ticket> {
        let tag = self.env.make_ref().encode(self.env);
        self.result = Some(tag);
        let caller = Caller::of(self.name, None, self.env.pid(), tag);
        let call = Call::any(caller, self.leader, self.verb, self.request, &tape::MEDIUM);
        self.pool.ticket(call, self.timeout)
    }
}
