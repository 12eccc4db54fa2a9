//! Questions of Python code to the BEAM: the thread that asks waits, and others take its place.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};

use py_patience::Patience;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::ffi;
use crate::interpreter::{Interpreter, lock};
use crate::ticket::Ticket;
use crate::wire::{Address, Fault, Inbox};

/// The process that hears them.
const DISPATCHER: &str = "Elixir.Py.Callbacks";

/// An answer, as the wire brought it. It is read by the thread that asked.
pub trait Answer: Send {
    fn read<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Result<Bound<'py, PyAny>, Fault>;
}

#[derive(Default)]
pub struct Questions {
    /// Somebody is there to answer.
    admitted: AtomicBool,
    last: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Question>>>,
}

/// In whose name Python code asks: a request, as long as it is in progress, and the pool it came to.
#[derive(Clone)]
pub struct Asker {
    pool: usize,
    ticket: Weak<Ticket>,
}

impl Asker {
    pub(crate) fn of(ticket: &Arc<Ticket>) -> Self {
        Asker { pool: ticket.pool(), ticket: Arc::downgrade(ticket) }
    }

    fn is_of(&self, ticket: &Arc<Ticket>) -> bool {
        std::ptr::addr_eq(self.ticket.as_ptr(), Arc::as_ptr(ticket))
    }

    pub fn pool(&self) -> usize {
        self.pool
    }

    /// As the wire tells it.
    pub fn caller_etf(&self) -> Option<Vec<u8>> {
        self.ticket()?.wire().caller_etf()
    }

    fn ticket(&self) -> Option<Arc<Ticket>> {
        self.ticket.upgrade().filter(|ticket| !ticket.is_settled())
    }
}

struct Question {
    /// The request that waits for the answer, where one does.
    ticket: Option<Arc<Ticket>>,
    asker: Option<Asker>,
    state: Mutex<State>,
    changed: Condvar,
    /// The same for the main thread of a process, which waits at its inbox.
    woken: AtomicBool,
    inbox: Option<&'static dyn Inbox>,
}

#[derive(Default)]
struct State {
    answer: Option<Box<dyn Answer>>,
    is_over: bool,
}

impl Questions {
    /// Lets Python code ask from now on.
    pub fn admit(&self) {
        self.admitted.store(true, Ordering::Relaxed);
    }

    /// Hands an answer to who waits for it, if somebody does.
    pub fn answer(&self, number: u64, answer: Box<dyn Answer>) {
        if let Some(question) = lock(&self.open).remove(&number) {
            question.change(|state| state.answer = Some(answer));
        }
    }

    /// Ends what a request asks: it is settled.
    pub fn interrupt(&self, ticket: &Arc<Ticket>) {
        for question in lock(&self.open).values() {
            if question.ticket.as_ref().is_some_and(|asks| Arc::ptr_eq(asks, ticket)) {
                question.change(|state| state.is_over = true);
            }
        }
    }

    /// Ends all there are: who would answer has lost them.
    pub fn abandon(&self) {
        for (_, question) in lock(&self.open).drain() {
            question.change(|state| state.is_over = true);
        }
    }

    /// Who asks, if the question is still open and that is known.
    pub fn asker(&self, number: u64) -> Option<Asker> {
        lock(&self.open).get(&number)?.asker.clone()
    }

    fn open(
        &self,
        ticket: Option<Arc<Ticket>>,
        asker: Option<Asker>,
        inbox: Option<&'static dyn Inbox>,
    ) -> (u64, Arc<Question>) {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let question = Arc::new(Question {
            ticket,
            asker,
            state: Mutex::default(),
            changed: Condvar::new(),
            woken: AtomicBool::new(false),
            inbox,
        });
        lock(&self.open).insert(number, Arc::clone(&question));
        (number, question)
    }

    /// True where the question was still open.
    fn close(&self, number: u64) -> bool {
        lock(&self.open).remove(&number).is_some()
    }
}

impl Question {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.woken.store(true, Ordering::SeqCst);
        match self.inbox {
            Some(inbox) => inbox.wake(),
            None => self.changed.notify_all(),
        }
    }

    fn is_over(&self) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| ticket.is_settled())
    }

    /// The answer; none where nobody is to wait for one any more.
    fn wait(&self) -> Option<Box<dyn Answer>> {
        match self.inbox {
            Some(inbox) => self.wait_at(inbox),
            None => self.wait_here(),
        }
    }

    fn wait_here(&self) -> Option<Box<dyn Answer>> {
        let mut patience = Patience::new();
        while !self.woken.load(Ordering::Acquire) && !patience.is_over() {
            std::hint::spin_loop();
        }
        let waits = |state: &mut State| state.answer.is_none() && !state.is_over && !self.is_over();
        let state = self.changed.wait_while(lock(&self.state), waits);
        state.unwrap_or_else(std::sync::PoisonError::into_inner).answer.take()
    }

    /// The same on the main thread of a process, which has to see to what comes meanwhile.
    fn wait_at(&self, inbox: &dyn Inbox) -> Option<Box<dyn Answer>> {
        loop {
            {
                let mut state = lock(&self.state);
                if state.answer.is_some() || state.is_over || self.is_over() {
                    return state.answer.take();
                }
            }
            inbox.wait(&self.woken);
        }
    }
}

/// `ask(kind, what, asker)`: asks the dispatcher, and waits for its answer. The asker is for threads that
/// run no request themselves.
pub fn ask<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    arguments: &[Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let [kind, what, asker] = arguments else {
        return Err(PyTypeError::new_err("ask(kind, what, asker) takes three arguments"));
    };
    if !interpreter.questions.admitted.load(Ordering::Relaxed) {
        return Err(PyRuntimeError::new_err(
            "nobody answers yet: init: of a pool with prefork: true cannot call Elixir, its workers can",
        ));
    }
    if interpreter.gate.is_caller_inline() {
        return Err(PyRuntimeError::new_err(
            "a call with inline: true runs on a scheduler of the VM, which cannot wait: call this function without it",
        ));
    }
    let runner = crate::runner::here();
    let ticket = runner.and_then(|runner| interpreter.scheduler.ticket_of(runner));
    let asker = ticket.as_ref().map(Asker::of).or_else(|| ffi::capsule_asker(asker));
    let request = asker.as_ref().and_then(Asker::ticket);
    if let Some(request) = &request {
        request.wire().lingers();
    }
    let request = request.map_or(0, |request| request.wire().id());
    let inbox = runner.and_then(|runner| interpreter.scheduler.inbox_of(runner));
    let (number, question) = interpreter.questions.open(ticket, asker, inbox);
    let told = tell(interpreter, py, kind, number, request, what);
    if let Err(error) = told {
        interpreter.questions.close(number);
        return Err(error);
    }
    let suspended = interpreter.scheduler.suspend(runner);
    let answer = crate::runner::wait_outside(py, interpreter, || question.wait());
    drop(suspended);
    match answer {
        Some(answer) => answer.read(py, interpreter).map_err(|fault| PyTypeError::new_err(fault.message)),
        None => Err(given_up(interpreter, py, number, &question)),
    }
}

/// `may_ask()`: whether there is somebody to answer, and the calling thread can wait for that.
pub fn may_ask<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    _: &[Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let admitted = interpreter.questions.admitted.load(Ordering::Relaxed);
    let may_ask = admitted && !interpreter.gate.is_caller_inline();
    Ok(PyBool::new(py, may_ask).to_owned().into_any())
}

/// `asker()`: the request that the calling thread runs, for `ask` on another thread; None where it runs
/// none.
pub fn asker<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    _: &[Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    match crate::runner::here().and_then(|runner| interpreter.scheduler.ticket_of(runner)) {
        Some(ticket) => ffi::asker_capsule(py, Asker::of(&ticket)),
        None => Ok(py.None().into_bound(py)),
    }
}

/// `runs(asker)`: whether it is the request that the calling thread runs.
pub fn runs<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    arguments: &[Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let [asker] = arguments else {
        return Err(PyTypeError::new_err("runs(asker) takes one argument"));
    };
    let asker = ffi::capsule_asker(asker);
    let ticket = crate::runner::here().and_then(|runner| interpreter.scheduler.ticket_of(runner));
    let runs = asker.zip(ticket).is_some_and(|(asker, ticket)| asker.is_of(&ticket));
    Ok(PyBool::new(py, runs).to_owned().into_any())
}

/// Nobody waits for the answer any more: whoever works at it need not.
fn given_up(interpreter: &'static Interpreter, py: Python<'_>, number: u64, question: &Question) -> PyErr {
    interpreter.questions.close(number);
    if !question.is_over() {
        return PyRuntimeError::new_err("the process that answers was restarted; ask again");
    }
    // Without Python: the signal that ends the request may come in between.
    interpreter.host.forget(number);
    interpreter.hooks.cancelled.bind(py).call0().map_or_else(|error| error, PyErr::from_value)
}

fn tell<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    kind: &Bound<'py, PyAny>,
    number: u64,
    request: u64,
    what: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let message = (kind, number, request, what).into_pyobject(py)?;
    let dispatcher = Address::Name(DISPATCHER);
    match interpreter.host.send(interpreter, dispatcher, &message.into_any()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(PyRuntimeError::new_err("nobody is there to answer: the node is stopping")),
        Err(fault) => Err(PyTypeError::new_err(fault.message)),
    }
}
