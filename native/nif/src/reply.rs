//! The answer to a caller: one message, sent straight from the thread that has it.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use py_core::convert::from_python;
use py_core::{Fault, Interpreter, Kind, Outcome, Pool, Reply, Ticket};
use pyo3::prelude::*;
use rustler::{Encoder, Env, LocalPid, Monitor, Resource, ResourceArc};

use crate::atoms;
use crate::ffi::{Builder, Letter};
use crate::terms::TermWriter;

thread_local! {
    /// A thread builds one message after the other in the same environment.
    static MESSAGE: RefCell<Builder> = RefCell::new(Builder::new());
}

/// Runs `build` on an empty builder of the calling thread.
pub fn with_message<R>(build: impl FnOnce(&mut Builder) -> R) -> R {
    MESSAGE.with_borrow_mut(|builder| {
        builder.clear();
        build(builder)
    })
}

/// Answers with `{:py_result, tag, result}`.
pub struct Caller {
    pid: LocalPid,
    letter: Arc<Letter>,
    pool: Weak<Pool>,
    death: Mutex<Option<ResourceArc<CallerDeath>>>,
    answered: bool,
    /// Opens the pool when its start succeeded.
    opens: bool,
}

/// The index of the tag in the letter of a request.
pub const TAG: usize = 0;

impl Caller {
    pub fn new(pid: LocalPid, letter: Arc<Letter>, pool: &Arc<Pool>) -> Self {
        let pool = Arc::downgrade(pool);
        Caller { pid, letter, pool, death: Mutex::default(), answered: false, opens: false }
    }

    /// The caller is the one who starts the pool.
    pub fn opening(mut self) -> Self {
        self.opens = true;
        self
    }

    fn answer(&self, result: impl FnOnce(&mut Builder)) {
        with_message(|builder| {
            builder.push_atom(atoms::py_result());
            builder.push_copy(self.letter.term(TAG));
            result(builder);
            builder.end_tuple(3);
            builder.send(&self.pid);
        });
    }

    fn value(&self, interpreter: &'static Interpreter, value: &Bound<'_, PyAny>, success: bool) {
        let written = with_message(|builder| {
            builder.push_atom(atoms::py_result());
            builder.push_copy(self.letter.term(TAG));
            builder.push_atom(if success { atoms::ok() } else { atoms::error() });
            let mut writer = TermWriter { builder, interpreter };
            from_python(interpreter, value, &mut writer)?;
            builder.end_tuple(2);
            builder.end_tuple(3);
            builder.send(&self.pid);
            Ok(())
        });
        if let Err(refusal) = written {
            let refusal: py_core::convert::Refusal = refusal;
            self.failed(&refusal.into_fault(Kind::Decode, "result"));
        }
    }

    fn failed(&self, fault: &Fault) {
        self.answer(|builder| {
            builder.push_atom(atoms::error());
            push_error(builder, fault);
            builder.end_tuple(2);
        });
    }
}

impl Reply for Caller {
    fn send(mut self: Box<Self>, outcome: Outcome<'_, '_>) {
        self.answered = true;
        match outcome {
            Outcome::Done => {
                if let (true, Some(pool)) = (self.opens, self.pool.upgrade()) {
                    pool.opened();
                }
                self.answer(|builder| builder.push_atom(atoms::ok()));
            }
            Outcome::Value(interpreter, value) => self.value(interpreter, value, true),
            Outcome::Raised(interpreter, description) => self.value(interpreter, description, false),
            Outcome::Failed(fault) => self.failed(&fault),
        }
    }

    fn discard(mut self: Box<Self>) {
        self.answered = true;
    }

    fn monitor(&self, ticket: &Arc<Ticket>) -> bool {
        let death = CallerDeath { ticket: Arc::downgrade(ticket), pool: self.pool.clone() };
        let death = ResourceArc::new(death);
        let alive = death.monitor(None, &self.pid).is_some();
        *self.death.lock().unwrap_or_else(PoisonError::into_inner) = Some(death);
        alive
    }
}

impl Drop for Caller {
    /// Whatever happened to the request, its caller does not wait for ever.
    fn drop(&mut self) {
        if !self.answered {
            self.failed(&Fault::new(
                Kind::Crashed,
                "the request was lost inside Py; this is a bug, please report it",
            ));
        }
    }
}

/// Ends a request when the process that waits for it is dead.
pub struct CallerDeath {
    ticket: Weak<Ticket>,
    pool: Weak<Pool>,
}

#[rustler::resource_impl]
impl Resource for CallerDeath {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _: Env<'a>, _: LocalPid, _: Monitor) {
        if let (Some(ticket), Some(pool)) = (self.ticket.upgrade(), self.pool.upgrade()) {
            pool.cancel(&ticket);
        }
    }
}

/// Pushes a `%Py.Error{}` that needs no Python.
fn push_error(builder: &mut Builder, fault: &Fault) {
    let known: [(rustler::Atom, rustler::Atom); 2] =
        [(atoms::__struct__(), atoms::py_error()), (atoms::__exception__(), atoms::r#true())];
    for (key, value) in known {
        builder.push_atom(key);
        builder.push_atom(value);
    }
    builder.push_atom(atoms::kind());
    builder.push(Name(fault.kind.name()));
    builder.push_atom(atoms::message());
    builder.push_binary(fault.message.as_bytes());
    let empty = [atoms::traceback(), atoms::notes(), atoms::exceptions()];
    for key in empty {
        builder.push_atom(key);
        builder.end_list(0);
    }
    let absent =
        [atoms::r#type(), atoms::module(), atoms::cause(), atoms::context(), atoms::exit(), atoms::object()];
    for key in absent {
        builder.push_atom(key);
        builder.push_atom(atoms::nil());
    }
    builder.end_map(known.len() + 2 + empty.len() + absent.len());
}

/// A name that the core gives, as an atom.
struct Name(&'static str);

impl Encoder for Name {
    fn encode<'a>(&self, env: Env<'a>) -> rustler::Term<'a> {
        atoms::known(env, self.0).encode(env)
    }
}
