//! The answer to a caller: one message, sent straight from the thread that has it.

use std::sync::{Arc, OnceLock};

use py_core::convert::{Refusal, from_python};
use py_core::{Canceller, Fault, Kind, Outcome};
use pyo3::prelude::*;
use rustler::{Atom, Encoder, Env, LocalPid, Monitor, Resource, ResourceArc, Term};

use crate::atoms;
use crate::ffi::{self, Builder, Envelope, Meeting};
use crate::terms::{self, TermWriter};

/// Who gets `{:py_result, tag, result}`.
pub struct Caller {
    pid: LocalPid,
    /// Where it looks for it first, if it does.
    meeting: Option<Arc<Meeting>>,
    envelope: Envelope,
    /// Which it asks.
    pool: Option<Atom>,
    death: OnceLock<ResourceArc<CallerDeath>>,
}

impl Caller {
    pub fn new(pid: LocalPid, tag: Term<'_>) -> Self {
        Caller { pid, meeting: None, envelope: Envelope::new(tag), pool: None, death: OnceLock::new() }
    }

    /// One of a pool; it looks for its answer at the meeting first, if there is one.
    pub fn of(pool: Atom, meeting: Option<Arc<Meeting>>, pid: LocalPid, tag: Term<'_>) -> Self {
        Caller { meeting, pool: Some(pool), ..Caller::new(pid, tag) }
    }

    /// The word of the pid.
    pub fn word(&self) -> u64 {
        ffi::pid_word(&self.pid)
    }

    /// The external term format of `{pid, tag}`; none once it was answered.
    pub fn etf(&self) -> Option<Vec<u8>> {
        let mut builder = Builder::new();
        builder.push(self.pid);
        if !self.envelope.copy_tag(&mut builder) {
            return None;
        }
        builder.end_tuple(2);
        Some(terms::etf(builder.top()))
    }

    /// To be called once: later answers are nobody's.
    pub fn answer(&self, outcome: Outcome<'_, '_>) {
        let Some(mut builder) = self.envelope.open(atoms::py_result()) else { return };
        push_result(&mut builder, outcome, self.pool, &|| true);
        builder.end_tuple(3);
        self.deliver(&mut builder);
    }

    fn deliver(&self, message: &mut Builder) {
        if !self.meeting.as_ref().is_some_and(|meeting| message.meet(meeting)) {
            message.send(&self.pid);
        }
    }

    /// An answer that is made before it is known whether it is the one.
    pub fn prepare(&self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) -> impl FnOnce() + '_ {
        let mut builder = Builder::new();
        push_result(&mut builder, outcome, self.pool, goes_on);
        move || {
            let Some(result) = builder.last() else { return };
            builder.push_atom(atoms::py_result());
            if self.envelope.push_tag(&mut builder) {
                builder.push_again(result);
                builder.end_tuple(3);
                self.deliver(&mut builder);
            }
        }
    }

    pub fn monitor(&self, canceller: Canceller) -> bool {
        let death = self.death.get_or_init(|| ResourceArc::new(CallerDeath(canceller)));
        death.monitor(None, &self.pid).is_some()
    }
}

/// Ends a request when the process that waits for it is dead.
pub struct CallerDeath(Canceller);

#[rustler::resource_impl]
impl Resource for CallerDeath {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _: Env<'a>, _: LocalPid, _: Monitor) {
        self.0.cancel();
    }
}

/// Pushes `:ok`, `{:ok, value}` or `{:error, error}`, of a pool.
pub fn push_result(
    builder: &mut Builder,
    outcome: Outcome<'_, '_>,
    pool: Option<Atom>,
    goes_on: &dyn Fn() -> bool,
) {
    match outcome {
        Outcome::Done => builder.push_atom(atoms::ok()),
        Outcome::Value(interpreter, value) => {
            let writer = TermWriter { builder, interpreter, pool };
            push_value(writer, value, atoms::ok(), goes_on)
        }
        Outcome::Raised(interpreter, error) => {
            let writer = TermWriter { builder, interpreter, pool };
            push_value(writer, error, atoms::error(), goes_on)
        }
        Outcome::Failed(fault) => push_failure(builder, &fault),
    }
}

fn push_value(mut writer: TermWriter<'_>, value: &Bound<'_, PyAny>, kind: Atom, goes_on: &dyn Fn() -> bool) {
    let height = writer.builder.height();
    writer.builder.push_atom(kind);
    let written: Result<(), Refusal> = from_python(writer.interpreter, value, &mut writer, goes_on);
    match written {
        Ok(()) => writer.builder.end_tuple(2),
        Err(refusal) => {
            writer.builder.cut(height);
            push_failure(writer.builder, &refusal.into_fault(Kind::Decode, "result"));
        }
    }
}

fn push_failure(builder: &mut Builder, fault: &Fault) {
    builder.push_atom(atoms::error());
    push_error(builder, fault);
    builder.end_tuple(2);
}

/// Pushes a `%Py.Error{}` that needs no Python.
fn push_error(builder: &mut Builder, fault: &Fault) {
    let known: [(Atom, Atom); 2] =
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
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        atoms::known(env, self.0).encode(env)
    }
}
