//! Requests that came through the pipe, and what a pool needs before it serves.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use py_core::convert::{self, Read, SHARED_FROM, Token, Verb, Write, from_python};
use py_core::fork;
use py_core::wire::Leader;
use py_core::{Answer as AnswerToPython, Canceller, Fault, Interpreter, Kind, Outcome, Pool, Source, Wire};
use py_shared::Lane;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::etf::{Atoms, Document, Malformed, Mark, Reader, VERSION, Writer};
use crate::ffi;
use crate::frames::{incoming, outgoing};
use crate::inbox::Inbox;
use crate::outbox::{Frame, Outbox};
use crate::segments::Lease;

static ATOMS: LazyLock<Mutex<Atoms>> = LazyLock::new(Mutex::default);

/// A tuple that was looked through, and whose first element is the group leader.
pub struct Body {
    term: Term,
    marks: Vec<(usize, Mark)>,
}

enum Term {
    Own(Vec<u8>),
    Shared(Arc<Lease>),
}

impl Body {
    pub fn new(bytes: &[u8]) -> Result<Self, Malformed> {
        let term = bytes.strip_prefix(&[VERSION]).ok_or(Malformed)?;
        let marks = Document::new(term)?.marks;
        Ok(Body { term: Term::Own(term.to_vec()), marks })
    }

    pub fn shared(lease: Arc<Lease>) -> Result<Self, Malformed> {
        let term = lease.bytes().strip_prefix(&[VERSION]).ok_or(Malformed)?;
        let marks = Document::new(term)?.marks;
        Ok(Body { term: Term::Shared(lease), marks })
    }

    fn reader(&self) -> Reader<'_> {
        let (bytes, lease) = match &self.term {
            Term::Own(bytes) => (&bytes[..], None),
            Term::Shared(lease) => (&lease.bytes()[1..], Some(lease)),
        };
        Reader::new(bytes, &self.marks, &ATOMS, lease)
    }

    /// After the group leader.
    fn parts(&self) -> Reader<'_> {
        let mut reader = self.reader();
        reader.raw();
        reader
    }

    fn leader(&self) -> &[u8] {
        self.reader().raw()
    }
}

/// How a request came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Pipe,
    Lane,
}

/// Where the answer to a request goes.
struct Answer {
    inbox: &'static Inbox,
    id: u64,
    /// Is there a caller in the lane who looks for it there?
    in_lane: AtomicBool,
    /// What was in line when it came. What is put there later comes before the answer.
    position: u64,
    epoch: Instant,
    /// When it began to run, in nanoseconds since `epoch`; zero before.
    begun: AtomicU64,
    /// Large binaries of it stay in memory of ours.
    is_mapped: bool,
}

impl Answer {
    fn new(inbox: &'static Inbox, id: u64, way: Way) -> Self {
        let in_lane = way == Way::Lane;
        Answer {
            inbox,
            id,
            in_lane: AtomicBool::new(in_lane),
            position: if in_lane { inbox.out.position() } else { 0 },
            epoch: Instant::now(),
            begun: AtomicU64::new(0),
            is_mapped: false,
        }
    }

    fn out(&self) -> &'static Outbox {
        self.inbox.out
    }

    fn age_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn begin(&self) {
        self.out().page.begin(self.id);
        self.begun.store(self.age_ns().max(1), Ordering::Relaxed);
    }

    fn head(&self, kind: u8) -> Frame {
        let run = match self.begun.load(Ordering::Relaxed) {
            0 => 0,
            begun => self.age_ns().saturating_sub(begun),
        };
        Frame::new(kind).u64(self.id).u64(run)
    }

    fn writer(&self, kind: u8) -> Writer {
        Writer::new(self.head(kind).u8(VERSION).0)
    }

    fn frame(&self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) -> Frame {
        let (interpreter, value, tag) = match outcome {
            Outcome::Failed(fault) => return self.fault(&fault),
            Outcome::Done => {
                let mut writer = self.writer(outgoing::REPLY);
                writer.atom("ok");
                return Frame(writer.bytes);
            }
            Outcome::Value(interpreter, value) => (interpreter, value, "ok"),
            Outcome::Raised(interpreter, error) => (interpreter, error, "error"),
        };
        let mut writer = self.writer(outgoing::REPLY);
        writer.tuple(2);
        writer.atom(tag);
        match from_python(interpreter, value, &mut writer, goes_on) {
            Ok(()) => self.finish(value.py(), writer),
            Err(refusal) => {
                interpreter.drop_objects(value.py(), &writer.objects);
                self.fault(&refusal.into_fault(Kind::Decode, "result"))
            }
        }
    }

    /// What is large goes into a segment, if there is memory for one.
    fn finish(&self, py: Python<'_>, mut writer: Writer) -> Frame {
        if !writer.objects.is_empty() {
            return referring(std::mem::take(&mut writer.objects), writer.whole(py));
        }
        let shared = if writer.len() < SHARED_FROM {
            None
        } else if writer.is_mostly_large() || self.is_mapped && writer.has_large() {
            let (parts, begin) = writer.parts_behind(py, HEAD);
            self.fill(outgoing::MAPPED_REPLY, &parts, parts[0].len()).map(|frame| frame.u64(begin as u64))
        } else {
            let parts = writer.parts(py, HEAD);
            self.fill(outgoing::SHARED_REPLY, &parts, parts.iter().map(|part| part.len()).sum())
        };
        shared.unwrap_or_else(|| Frame(writer.whole(py)))
    }

    fn fill(&self, kind: u8, parts: &[&[u8]], len: usize) -> Option<Frame> {
        let segment = self.inbox.segments.fill(self.out(), parts)?;
        Some(self.head(kind).u32(segment).u64(len as u64))
    }

    fn fault(&self, fault: &Fault) -> Frame {
        let mut writer = self.writer(outgoing::FAULT);
        writer.tuple(2);
        writer.atom(fault.kind.name());
        writer.binary(fault.message.as_bytes());
        Frame(writer.bytes)
    }

    fn send(&self, outcome: Outcome<'_, '_>) {
        end_child(&outcome);
        self.give(&self.frame(outcome, &|| true));
    }

    /// Gives the answer to who looks for it in the lane, or puts it in line.
    fn give(&self, frame: &Frame) {
        use outgoing::{FAULT, REFERRING_REPLY, REPLY};
        let small = matches!(frame.content().first(), Some(&(REPLY | FAULT | REFERRING_REPLY)));
        if let Some(lane) = self.leave_lane() {
            if small && self.out().position() == self.position && lane.answer(frame.content()) {
                return;
            }
            lane.decline();
        }
        self.out().put(frame);
    }

    /// Puts in line what is no answer yet, and has the answer come there too.
    fn tell(&self, frame: &Frame) {
        if let Some(lane) = self.leave_lane() {
            lane.decline();
        }
        self.out().put(frame);
    }

    /// The lane, if this answer was to go there and is not any more.
    fn leave_lane(&self) -> Option<Lane<'_>> {
        self.in_lane.swap(false, Ordering::AcqRel).then(|| self.out().page.lane())?
    }

    fn prepare<'a>(&'a self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) -> Box<dyn FnOnce() + 'a> {
        end_child(&outcome);
        let frame = self.frame(outcome, goes_on);
        Box::new(move || self.give(&frame))
    }
}

impl Drop for Answer {
    /// Nobody wants an answer any more, but in the lane they have not heard of that.
    fn drop(&mut self) {
        if let Some(lane) = self.leave_lane() {
            lane.decline();
        }
    }
}

/// Where this is a child that Python code forked, it is done: the request is its parent's.
fn end_child(outcome: &Outcome<'_, '_>) {
    if !fork::is_child() {
        return;
    }
    let failed = matches!(outcome, Outcome::Failed(_) | Outcome::Raised(..));
    if failed {
        eprintln!("py: a child of os.fork() raised an exception; its parent goes on");
    }
    let flush = |py: Python<'_>| py.run(c"import sys; sys.stdout.flush()", None, None);
    let _unwritable = Python::attach(flush);
    ffi::end_child(i32::from(failed));
}

/// Bytes of a frame before its term: length, kind, id, time.
const HEAD: usize = 4 + 1 + 8 + 8;

/// Where in it the kind is.
const HEAD_KIND: usize = 4;

/// The same answer with the numbers of the objects that it refers to: who takes it is in charge of them from then
/// on, whatever it makes of the rest.
fn referring(objects: Vec<u64>, mut answer: Vec<u8>) -> Frame {
    answer[HEAD_KIND] = outgoing::REFERRING_REPLY;
    let count = (objects.len() as u32).to_be_bytes();
    answer.splice(HEAD..HEAD, count.into_iter().chain(objects.into_iter().flat_map(u64::to_be_bytes)));
    Frame(answer)
}

/// A request of a process.
pub struct Request {
    answer: Answer,
    verb: Verb,
    body: Body,
}

impl Request {
    pub fn new(inbox: &'static Inbox, verb: u8, id: u64, body: Body, way: Way) -> Result<Self, Malformed> {
        let verbs = [Verb::Call, Verb::Eval, Verb::Exec, Verb::GetAttr, Verb::Reload, Verb::Within];
        let is_mapped = verb & incoming::MAPPED != 0;
        let verb = *verbs.get(usize::from(verb & !incoming::MAPPED)).ok_or(Malformed)?;
        let mut answer = Answer::new(inbox, id, way);
        answer.is_mapped = is_mapped;
        Ok(Request { answer, verb, body })
    }
}

impl Wire for Request {
    /// Callers took their turns where they were told apart.
    fn caller(&self) -> u64 {
        0
    }

    fn id(&self) -> u64 {
        self.answer.id
    }

    fn read<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Result<py_core::Request<'py>, Fault> {
        self.answer.begin();
        convert::request(py, interpreter, self.verb, &mut self.body.parts())
    }

    fn leader(&self) -> Leader {
        leader(&self.body)
    }

    fn leader_etf(&self) -> Vec<u8> {
        leader_etf(&self.body)
    }

    fn subject(&self) -> String {
        convert::subject(self.verb, &mut self.body.parts())
    }

    fn send(&self, outcome: Outcome<'_, '_>) {
        self.answer.send(outcome);
    }

    fn prepare<'a>(&'a self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) -> Box<dyn FnOnce() + 'a> {
        self.answer.prepare(outcome, goes_on)
    }

    fn give_back(&self) {
        self.answer.tell(&Frame::new(outgoing::GIVEN_BACK).u64(self.answer.id));
    }

    fn lingers(&self) {
        if let Some(lane) = self.answer.leave_lane() {
            lane.decline();
        }
    }

    fn awaits(&self) {
        self.answer.tell(&Frame::new(outgoing::AWAITS).u64(self.answer.id));
    }

    /// The BEAM says when the caller is dead.
    fn monitor(&self, _: Canceller) -> bool {
        true
    }
}

fn leader(body: &Body) -> Leader {
    let mut hasher = DefaultHasher::new();
    body.leader().hash(&mut hasher);
    Leader::Local(hasher.finish())
}

fn leader_etf(body: &Body) -> Vec<u8> {
    [&[VERSION], body.leader()].concat()
}

/// What a pool needs before it serves: a tuple of the group leader, `init`, its file, its line, and
/// paths.
pub struct Start {
    answer: Answer,
    /// None in a template, which opens none.
    pool: Option<Arc<Pool>>,
    body: Body,
}

impl Start {
    pub fn new(inbox: &'static Inbox, pool: Option<Arc<Pool>>, id: u64, body: Body) -> Self {
        Start { answer: Answer::new(inbox, id, Way::Pipe), pool, body }
    }
}

impl Wire for Start {
    fn caller(&self) -> u64 {
        0
    }

    fn read<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Result<py_core::Request<'py>, Fault> {
        self.answer.begin();
        let mut parts = self.body.parts();
        interpreter.settle(&convert::value(py, interpreter, &mut parts)?)?;
        let init = text(&mut parts);
        let file = text(&mut parts);
        let line = match parts.next() {
            Token::Int(line) => line,
            _ => 1,
        };
        let paths = match parts.next() {
            Token::List(len) => (0..len).filter_map(|_| text(&mut parts)).collect(),
            _ => Vec::new(),
        };
        let init = init.map(|code| Source {
            code: PyString::new(py, &code),
            variables: PyDict::new(py),
            file: file.map(|file| PyString::new(py, &file)),
            line,
        });
        Ok(py_core::Request::Start { init, paths, env: PyDict::new(py) })
    }

    fn leader(&self) -> Leader {
        leader(&self.body)
    }

    fn leader_etf(&self) -> Vec<u8> {
        leader_etf(&self.body)
    }

    fn subject(&self) -> String {
        String::from("init")
    }

    /// The pool is open before the BEAM hears of it.
    fn send(&self, outcome: Outcome<'_, '_>) {
        if let (Outcome::Done, Some(pool)) = (&outcome, &self.pool) {
            pool.opened();
        }
        self.answer.send(outcome);
    }

    fn prepare<'a>(&'a self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) -> Box<dyn FnOnce() + 'a> {
        self.answer.prepare(outcome, goes_on)
    }

    fn monitor(&self, _: Canceller) -> bool {
        true
    }
}

fn text(reader: &mut Reader<'_>) -> Option<String> {
    match reader.next() {
        Token::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

/// What the BEAM answers Python code: the one element of a tuple.
pub struct Answered {
    term: Vec<u8>,
    marks: Vec<(usize, Mark)>,
}

impl Answered {
    pub fn new(bytes: &[u8]) -> Result<Self, Malformed> {
        let term = bytes.strip_prefix(&[VERSION]).ok_or(Malformed)?;
        Ok(Answered { term: term.to_vec(), marks: Document::new(term)?.marks })
    }
}

impl AnswerToPython for Answered {
    fn read<'py>(&self, py: Python<'py>, interpreter: &Interpreter) -> Result<Bound<'py, PyAny>, Fault> {
        convert::value(py, interpreter, &mut Reader::new(&self.term, &self.marks, &ATOMS, None))
    }
}

/// What is answered about the process itself, and never runs.
pub struct Question(Answer);

impl Question {
    pub fn new(inbox: &'static Inbox, id: u64) -> Self {
        Question(Answer::new(inbox, id, Way::Pipe))
    }
}

impl Wire for Question {
    fn caller(&self) -> u64 {
        0
    }

    fn read<'py>(&self, _: Python<'py>, _: &Interpreter) -> Result<py_core::Request<'py>, Fault> {
        Err(Fault::new(Kind::Encode, "a question is no request"))
    }

    fn leader(&self) -> Leader {
        Leader::Remote
    }

    fn leader_etf(&self) -> Vec<u8> {
        Vec::new()
    }

    fn subject(&self) -> String {
        String::from("stacktrace")
    }

    fn send(&self, outcome: Outcome<'_, '_>) {
        self.0.send(outcome);
    }

    fn prepare<'a>(&'a self, outcome: Outcome<'_, '_>, goes_on: &dyn Fn() -> bool) -> Box<dyn FnOnce() + 'a> {
        self.0.prepare(outcome, goes_on)
    }

    fn monitor(&self, _: Canceller) -> bool {
        true
    }
}
