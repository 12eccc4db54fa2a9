//! Tickets, queue and replies over a real Python and a scripted wire.
//!
//! These are programs linked to libpython; `scripts/cargo.sh` says to which.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use py_core::boot::{Facts, Home, boot};
use py_core::wire::{Address, Host, Leader};
use py_core::{
    Cancel, Canceller, Fault, Interpreter, Kind, Limits, Outcome, Pool, PoolInfo, Refusal, Request, Source,
    Ticket, Wire,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// What came back for a request, by its name.
type Answer = (&'static str, Result<String, Kind>);

const LONG: Duration = Duration::from_secs(20);

struct Nobody;

impl Host for Nobody {
    fn forget(&self, _: u64) {}

    fn send(&self, _: &'static Interpreter, _: Address<'_>, _: &Bound<'_, PyAny>) -> Result<bool, Fault> {
        Ok(false)
    }
}

/// A pid in external term format: NEW_PID_EXT of node `n@h`.
const PID: [u8; 19] = [131, 88, 119, 3, b'n', b'@', b'h', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];

static INTERPRETER: LazyLock<&'static Interpreter> = LazyLock::new(|| {
    let (ready, booted) = channel();
    let home = Home {
        executable: std::env::var("PY_TEST_PYTHON").expect("PY_TEST_PYTHON names an interpreter"),
        python_path: concat!(env!("CARGO_MANIFEST_DIR"), "/../../priv/python").into(),
    };
    let facts =
        Facts { sink: PID.to_vec(), leader: PID.to_vec(), decimal: false, set_version: false, in_node: true };
    boot(home, facts, Box::new(Nobody), Box::new(move |result| ready.send(result).expect("someone waits")))
        .expect("a thread");
    booted.recv().expect("an answer").expect("a Python")
});

/// A piece of code, and where its answer goes.
struct Letter {
    name: &'static str,
    code: &'static str,
    caller: u64,
    answers: Sender<Answer>,
}

impl Wire for Letter {
    fn caller(&self) -> u64 {
        self.caller
    }

    fn read<'py>(&self, py: Python<'py>, _: &Interpreter) -> Result<Request<'py>, Fault> {
        assert_ne!(self.code, "panic", "as the test asked");
        Ok(Request::Eval(Source {
            code: PyString::new(py, self.code),
            variables: PyDict::new(py),
            file: None,
            line: 1,
        }))
    }

    fn leader(&self) -> Leader {
        Leader::Local(1)
    }

    fn leader_etf(&self) -> Vec<u8> {
        PID.to_vec()
    }

    fn subject(&self) -> String {
        self.name.into()
    }

    fn send(&self, outcome: Outcome<'_, '_>) {
        let answer = match outcome {
            Outcome::Done => Ok(String::from("done")),
            Outcome::Value(_, value) => Ok(value.to_string()),
            Outcome::Raised(_, error) => Ok(error
                .getattr("fields")
                .and_then(|fields| fields.get_item("type"))
                .expect("a description")
                .to_string()),
            Outcome::Failed(fault) => Err(fault.kind),
        };
        let _ = self.answers.send((self.name, answer));
    }

    fn prepare<'a>(&'a self, outcome: Outcome<'_, '_>, _: &dyn Fn() -> bool) -> Box<dyn FnOnce() + 'a> {
        let Outcome::Value(_, value) = outcome else { unreachable!("only values take their time") };
        let answer = (self.name, Ok(value.to_string()));
        Box::new(move || drop(self.answers.send(answer)))
    }

    fn monitor(&self, _: Canceller) -> bool {
        true
    }
}

/// As in scheduler/stuck.rs.
const MAX_RETIRED: usize = 16;
const MAX_LEFT_BEHIND: usize = 256;

/// One test at a time: they share an interpreter and its threads.
static TURN: Mutex<()> = Mutex::new(());

struct Scene {
    pool: Pool,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    fn new(size: usize, max_queue: usize) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = open(size, max_queue, Duration::from_millis(100));
        let (sender, answers) = channel();
        Scene { pool, sender, answers, _turn: turn }
    }

    fn submit(
        &self,
        name: &'static str,
        code: &'static str,
        timeout: Option<Duration>,
    ) -> Result<Arc<Ticket>, Refusal> {
        self.submit_as(1, name, code, timeout)
    }

    fn submit_as(
        &self,
        caller: u64,
        name: &'static str,
        code: &'static str,
        timeout: Option<Duration>,
    ) -> Result<Arc<Ticket>, Refusal> {
        let letter = Letter { name, code, caller, answers: self.sender.clone() };
        let ticket = self.pool.ticket(letter, timeout);
        self.pool.submit(ticket.clone()).map(|()| ticket)
    }

    fn run_on(&self, pool: &Pool, name: &'static str, code: &'static str) -> Arc<Ticket> {
        let letter = Letter { name, code, caller: 1, answers: self.sender.clone() };
        let ticket = pool.ticket(letter, None);
        pool.submit(ticket.clone()).expect("the pool takes it");
        ticket
    }

    /// A pool that was stopped while `count` requests of it sat in C code.
    fn leave_behind(&self, count: usize, grace: Duration) {
        let pool = open(count, 0, grace);
        for _ in 0..count {
            self.run_on(&pool, "left", JAM);
        }
        until(&pool, |info| info.running == count);
        pool.close();
        for _ in 0..count {
            assert_eq!(self.answer(), ("left", Err(Kind::Stopped)));
        }
    }

    fn run(&self, name: &'static str, code: &'static str) -> Arc<Ticket> {
        self.submit(name, code, None).expect("the pool takes it")
    }

    fn answer(&self) -> Answer {
        self.answers.recv_timeout(LONG).expect("an answer comes")
    }

    fn nothing_more(&self) {
        assert_eq!(self.answers.try_recv().ok(), None);
    }

    fn until(&self, condition: impl Fn(&PoolInfo) -> bool) {
        until(&self.pool, condition);
    }
}

fn open(size: usize, max_queue: usize, grace: Duration) -> Pool {
    let pool = Pool::open(&INTERPRETER, Limits { size, max_queue, grace });
    pool.opened();
    pool
}

fn until(pool: &Pool, condition: impl Fn(&PoolInfo) -> bool) {
    let begin = Instant::now();
    while !condition(&pool.info()) {
        assert!(begin.elapsed() < LONG, "it never came to that: {:?}", pool.info());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Short sleeps, since a long one on another thread than Python's main one is left behind.
const SLEEP: &str = "import time\nfor _ in range(3000): time.sleep(0.01)";
const LOOP: &str = "while True: pass";

/// Sits in C code, on any thread but Python's main one, until the [`Jam`] is over.
const JAM: &str = "import sys; sys.jam.wait()";

/// What [`JAM`] waits for. The end of the test ends it, passed or not, and threads come back.
struct Jam;

impl Jam {
    fn new() -> Self {
        Python::attach(|py| {
            let event = py.import("threading")?.call_method0("Event")?;
            py.import("sys")?.setattr("jam", event)
        })
        .expect("an event");
        Jam
    }
}

impl Drop for Jam {
    fn drop(&mut self) {
        let set = |py: Python<'_>| py.import("sys")?.getattr("jam")?.call_method0("set").map(drop);
        Python::attach(set).expect("an event can be set");
    }
}

#[test]
fn requests_of_one_thread_are_answered_in_order() {
    let scene = Scene::new(1, 100);
    for (name, code) in [("a", "1"), ("b", "2"), ("c", "1/0"), ("d", "4")] {
        scene.run(name, code);
    }
    let answers: Vec<_> = (0..4).map(|_| scene.answer()).collect();
    let expected = [("a", "1"), ("b", "2"), ("c", "ZeroDivisionError"), ("d", "4")];
    assert_eq!(answers, expected.map(|(name, value)| (name, Ok(value.into()))));
    scene.nothing_more();
}

#[test]
fn a_full_queue_refuses_and_sends_nothing() {
    let scene = Scene::new(1, 2);
    let blocker = scene.run("blocker", SLEEP);
    scene.until(|info| info.running == 1);
    scene.run("a", "1");
    scene.run("b", "2");
    assert_eq!(scene.submit("c", "3", None).err(), Some(Refusal::Overloaded));
    assert_eq!(scene.pool.cancel(&blocker), Cancel::Cancelled);
    assert_eq!(scene.answer(), ("a", Ok("1".into())));
    assert_eq!(scene.answer(), ("b", Ok("2".into())));
    scene.nothing_more();
}

#[test]
fn what_is_cancelled_in_the_queue_never_runs_and_frees_its_place() {
    let scene = Scene::new(1, 1);
    let blocker = scene.run("blocker", SLEEP);
    scene.until(|info| info.running == 1);
    let queued = scene.run("queued", "import sys; sys.never = True");
    assert_eq!(scene.pool.cancel(&queued), Cancel::Cancelled);
    assert_eq!(scene.pool.info().queued, 0);
    scene.run("next", "import sys; hasattr(sys, 'never')");
    scene.pool.cancel(&blocker);
    assert_eq!(scene.answer(), ("next", Ok("False".into())));
    scene.nothing_more();
}

#[test]
fn a_cancelled_loop_stops_and_the_next_request_does_not_feel_it() {
    let scene = Scene::new(1, 100);
    for _ in 0..20 {
        let ticket = scene.run("loop", LOOP);
        scene.until(|info| info.running == 1);
        assert_eq!(scene.pool.cancel(&ticket), Cancel::Cancelled);
        scene.run("next", "sum(range(1000))");
        assert_eq!(scene.answer(), ("next", Ok("499500".into())));
    }
    scene.nothing_more();
    scene.until(|info| info.retired == 0);
}

#[test]
fn what_was_answered_cannot_be_cancelled() {
    let scene = Scene::new(1, 100);
    let ticket = scene.run("a", "1");
    assert_eq!(scene.answer(), ("a", Ok("1".into())));
    assert_eq!(scene.pool.cancel(&ticket), Cancel::Replied);
    let (queued, running) = ticket.times();
    assert!(queued > 0 && running > 0);
}

#[test]
fn cancel_and_answer_never_both_happen() {
    let scene = Scene::new(2, 1000);
    for round in 0..500 {
        let ticket = scene.run("a", "1");
        if round % 3 == 0 {
            std::thread::yield_now();
        }
        match scene.pool.cancel(&ticket) {
            Cancel::Replied => assert_eq!(scene.answer(), ("a", Ok("1".into()))),
            Cancel::Cancelled => {}
        }
    }
    scene.until(|info| info.running == 0 && info.queued == 0);
    scene.nothing_more();
}

#[test]
fn deadlines_hold_in_the_queue_and_while_running() {
    let scene = Scene::new(1, 100);
    let timeout = Some(Duration::from_millis(50));
    scene.submit("running", SLEEP, timeout).expect("taken");
    scene.submit("queued", "1", timeout).expect("taken");
    let mut answers = [scene.answer(), scene.answer()];
    answers.sort();
    assert_eq!(answers, [("queued", Err(Kind::Timeout)), ("running", Err(Kind::Timeout))]);
    scene.run("next", "2");
    assert_eq!(scene.answer(), ("next", Ok("2".into())));
}

#[test]
fn what_has_no_time_left_does_not_run() {
    let scene = Scene::new(1, 100);
    for _ in 0..100 {
        scene.submit("late", "import sys; sys.late = True", Some(Duration::ZERO)).expect("taken");
        assert_eq!(scene.answer(), ("late", Err(Kind::Timeout)));
    }
    scene.run("next", "import sys; hasattr(sys, 'late')");
    assert_eq!(scene.answer(), ("next", Ok("False".into())));
    scene.nothing_more();
}

#[test]
fn a_thread_that_does_not_mind_is_retired_and_replaced() {
    let scene = Scene::new(1, 100);
    let stubborn = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end:\n try: time.sleep(1)\n except BaseException: pass";
    scene.submit("stubborn", stubborn, Some(Duration::from_millis(20))).expect("taken");
    assert_eq!(scene.answer(), ("stubborn", Err(Kind::Timeout)));
    scene.run("next", "2");
    assert_eq!(scene.answer(), ("next", Ok("2".into())));
    scene.until(|info| info.retired == 0 && info.running == 0);
}

#[test]
fn a_blocked_request_does_not_hold_up_others() {
    let scene = Scene::new(2, 100);
    let blocker = scene.run("blocker", SLEEP);
    scene.until(|info| info.running == 1);
    scene.run("next", "2");
    assert_eq!(scene.answer(), ("next", Ok("2".into())));
    scene.pool.cancel(&blocker);
}

#[test]
fn a_panic_is_an_answer() {
    let scene = Scene::new(1, 100);
    scene.run("a", "panic");
    assert_eq!(scene.answer(), ("a", Err(Kind::Crashed)));
    scene.run("b", "2");
    assert_eq!(scene.answer(), ("b", Ok("2".into())));
}

#[test]
fn a_ticket_that_is_lost_is_an_answer() {
    let scene = Scene::new(1, 100);
    let letter = Letter { name: "lost", code: "1", caller: 1, answers: scene.sender.clone() };
    drop(scene.pool.ticket(letter, None));
    assert_eq!(scene.answer(), ("lost", Err(Kind::Crashed)));
}

#[test]
fn closing_answers_everything_and_takes_nothing_more() {
    let scene = Scene::new(1, 100);
    scene.run("running", SLEEP);
    scene.until(|info| info.running == 1);
    scene.run("queued", "1");
    scene.run("coroutine", "import asyncio\nawait asyncio.sleep(30)");
    scene.pool.close();
    let mut answers = [scene.answer(), scene.answer(), scene.answer()];
    answers.sort();
    assert_eq!(answers, ["coroutine", "queued", "running"].map(|name| (name, Err(Kind::Stopped))));
    assert_eq!(scene.submit("late", "1", None).err(), Some(Refusal::Stopped));
    scene.until(|info| info.running == 0);
    scene.nothing_more();
}

#[test]
fn coroutines_run_side_by_side_and_are_cancelled() {
    let scene = Scene::new(1, 1000);
    let begin = Instant::now();
    for _ in 0..200 {
        scene.run("sleep", "import asyncio\nawait asyncio.sleep(0.2)\n7");
    }
    for _ in 0..200 {
        assert_eq!(scene.answer(), ("sleep", Ok("7".into())));
    }
    assert!(begin.elapsed() < LONG / 2, "they ran one after another");
    let ticket = scene.run("long", "import asyncio\nawait asyncio.sleep(30)");
    scene.until(|info| info.awaiting == 1);
    assert_eq!(scene.pool.cancel(&ticket), Cancel::Cancelled);
    scene.until(|info| info.awaiting == 0);
    scene.nothing_more();
}

#[test]
fn a_blocked_event_loop_is_interrupted() {
    let scene = Scene::new(1, 1000);
    scene.run("warm", "import asyncio\nawait asyncio.sleep(0)");
    assert_eq!(scene.answer().0, "warm");
    scene
        .submit(
            "loop",
            "import asyncio\nawait asyncio.sleep(0)\nwhile True: pass",
            Some(Duration::from_millis(50)),
        )
        .expect("taken");
    assert_eq!(scene.answer(), ("loop", Err(Kind::Timeout)));
    scene.run("next", "import asyncio\nawait asyncio.sleep(0)\n7");
    assert_eq!(scene.answer(), ("next", Ok("7".into())));
    scene.until(|info| info.awaiting == 0);
}

#[test]
fn a_flood_of_one_caller_does_not_starve_another() {
    let scene = Scene::new(1, 10_000);
    let blocker = scene.run("blocker", SLEEP);
    scene.until(|info| info.running == 1);
    for _ in 0..1_000 {
        scene.submit_as(1, "flood", "1", None).expect("taken");
    }
    scene.submit_as(2, "other", "2", None).expect("taken");
    scene.pool.cancel(&blocker);
    let answers: Vec<_> = (0..1_001).map(|_| scene.answer().0).collect();
    let place = answers.iter().position(|name| *name == "other").expect("it is answered");
    assert!(place < 100, "it came after {place} others");
    scene.nothing_more();
}

#[test]
fn a_flood_keeps_none_of_thousands_waiting_for_more_than_its_share() {
    // As in queue.rs.
    const SHARE: usize = 16;
    let scene = Scene::new(1, 20_000);
    let blocker = scene.run("blocker", SLEEP);
    scene.until(|info| info.running == 1);
    for _ in 0..10_000 {
        scene.submit_as(0, "flood", "1", None).expect("taken");
    }
    for caller in 1..=4_096 {
        scene.submit_as(caller, "other", "2", None).expect("taken");
    }
    scene.pool.cancel(&blocker);
    let answers: Vec<_> = (0..14_096).map(|_| scene.answer().0).collect();
    let places = answers.iter().enumerate().filter(|(_, name)| **name == "other").map(|(place, _)| place);
    let late: Vec<_> = places.enumerate().filter(|(turn, place)| *place > turn + SHARE).collect();
    assert_eq!(late, [], "(its turn among the others, its place)");
    scene.nothing_more();
}

#[test]
fn one_caller_is_served_in_order_however_many_it_asks() {
    let scene = Scene::new(1, 10_000);
    let blocker = scene.run("blocker", SLEEP);
    scene.until(|info| info.running == 1);
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    for round in 0..50 {
        for name in names {
            let ticket = scene.run(name, "1");
            // Some are withdrawn while they wait.
            if round % 5 == 4 {
                assert_eq!(scene.pool.cancel(&ticket), Cancel::Cancelled);
            }
        }
    }
    assert_eq!(scene.pool.info().queued, 40 * names.len());
    scene.pool.cancel(&blocker);
    for _ in 0..40 {
        for name in names {
            assert_eq!(scene.answer().0, name);
        }
    }
    scene.nothing_more();
}

#[test]
fn what_is_taken_along_with_a_blocked_request_runs_elsewhere() {
    let scene = Scene::new(4, 1_000);
    let first = scene.run("first", "import time; time.sleep(0.002)");
    let blocker = scene.run("blocker", SLEEP);
    for _ in 0..10 {
        scene.run("next", "2");
    }
    let mut names: Vec<_> = (0..11).map(|_| scene.answer().0).collect();
    names.sort();
    assert_eq!(names[..2], ["first", "next"]);
    let running: Vec<_> = scene.pool.running().into_iter().map(|running| running.subject).collect();
    assert_eq!(running, ["blocker"]);
    assert_eq!(scene.pool.cancel(&first), Cancel::Replied);
    scene.pool.cancel(&blocker);
    scene.until(|info| info.running == 0);
    scene.nothing_more();
}

#[test]
fn threads_left_behind_by_a_pool_that_was_stopped_take_no_place_of_another() {
    let scene = Scene::new(4, 100);
    // Those of the second are still within their grace.
    for grace in [Duration::ZERO, Duration::from_secs(600)] {
        let jam = Jam::new();
        scene.leave_behind(40, grace);
        let blocker = scene.run("blocker", SLEEP);
        scene.until(|info| info.running == 1);
        scene.run("next", "2");
        assert_eq!(scene.answer(), ("next", Ok("2".into())));
        scene.pool.cancel(&blocker);
        drop(jam);
        scene.until(|info| info.retired == 0);
    }
    scene.nothing_more();
}

#[test]
fn a_pool_whose_threads_are_all_stuck_refuses_what_waits_and_what_comes() {
    let scene = Scene::new(2, 100);
    let jam = Jam::new();
    let elsewhere = open(1, 0, Duration::ZERO);
    let blocker = scene.run_on(&elsewhere, "blocker", SLEEP);
    until(&elsewhere, |info| info.running == 1);
    for retired in 1..=MAX_RETIRED {
        let ticket = scene.run("stuck", JAM);
        scene.until(|info| info.running == 1);
        scene.pool.cancel(&ticket);
        scene.until(|info| info.retired == retired);
    }
    let tickets = [scene.run("stuck", JAM), scene.run("stuck", JAM)];
    scene.until(|info| info.running == 2);
    scene.run("queued", "1");
    for ticket in &tickets {
        assert_eq!(scene.pool.cancel(ticket), Cancel::Cancelled);
    }
    assert_eq!(scene.answer(), ("queued", Err(Kind::Overloaded)));
    assert_eq!(scene.submit("late", "1", None).err(), Some(Refusal::Stuck));
    // Others have their threads still.
    let beside = open(1, 10, Duration::ZERO);
    scene.run_on(&beside, "beside", "2");
    assert_eq!(scene.answer(), ("beside", Ok("2".into())));
    drop(jam);
    elsewhere.cancel(&blocker);
    scene.until(|info| info.retired == 0 && info.running == 0);
    scene.until(|_| scene.submit("next", "3", None).is_ok());
    assert_eq!(scene.answer(), ("next", Ok("3".into())));
    scene.nothing_more();
}

#[test]
fn beyond_so_many_threads_left_behind_what_finds_none_free_is_refused() {
    let scene = Scene::new(10, 100);
    let jam = Jam::new();
    scene.leave_behind(MAX_LEFT_BEHIND + 10, Duration::ZERO);
    scene.until(|info| info.retired >= MAX_LEFT_BEHIND);
    // Python's main thread comes back, as it does from any sleep.
    scene.until(|_| scene.submit("first", "1", None).is_ok());
    assert_eq!(scene.answer(), ("first", Ok("1".into())));
    let taken: Vec<_> = (0..10).filter_map(|_| scene.submit("blocker", SLEEP, None).ok()).collect();
    scene.until(|info| info.running > 0 && info.queued == 0);
    let running = scene.pool.info().running;
    assert!(running < 10, "there were threads for all of them");
    for _ in running..taken.len() {
        assert_eq!(scene.answer(), ("blocker", Err(Kind::Overloaded)));
    }
    assert_eq!(scene.submit("late", "1", None).err(), Some(Refusal::Stuck));
    for ticket in &taken {
        scene.pool.cancel(ticket);
    }
    scene.until(|_| scene.submit("next", "2", None).is_ok());
    assert_eq!(scene.answer(), ("next", Ok("2".into())));
    drop(jam);
    scene.until(|info| info.retired == 0 && info.running == 0);
    scene.nothing_more();
}
