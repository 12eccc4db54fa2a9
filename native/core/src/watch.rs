//! The thread that looks after what takes long: it never holds the GIL, so nothing in Python can
//! keep it from telling a caller that time is up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::interpreter::Interpreter;
use crate::scheduler::Scheduler;
use crate::ticket::{Phase, Ticket, UP_BEFORE};
use crate::wire::Kind;

/// A request that takes longer lets another thread take over.
const BLOCKED: Duration = Duration::from_millis(1);

/// A request that takes longer has its caller monitored, and its deadline watched.
const PENDING: Duration = Duration::from_millis(10);

pub const TICK: Duration = Duration::from_millis(1);

/// Ticks between two looks at all that is pending.
const SWEEP_EVERY: u32 = 5;

const ASK_RETIRED_EVERY: u32 = 100 * SWEEP_EVERY;

/// Ticks without work until the watch sleeps: waking it costs a caller some microseconds.
const LINGER: u32 = 50;

/// What a caller is told whose request no thread will come to.
const STUCK: &str = "the threads that could run it sit in C code of calls that are over";

pub fn spawn(interpreter: &'static Interpreter) -> std::io::Result<()> {
    std::thread::Builder::new().name("py-watch".into()).spawn(move || watch(interpreter)).map(drop)
}

fn watch(interpreter: &'static Interpreter) {
    let scheduler = &interpreter.scheduler;
    let (mut idle, mut stalled) = (0, 0);
    for tick in 0_u32.. {
        let is_busy = || has_visitors(interpreter) || interpreter.releases.is_busy();
        idle = if scheduler.is_busy() || is_busy() { 0 } else { idle + 1 };
        if idle > LINGER {
            scheduler.sleep_watch(is_busy);
        }
        std::thread::sleep(TICK);
        scheduler.pass_tick();
        let now = Instant::now();
        scheduler.relieve(now, BLOCKED);
        stalled = if interpreter.stalls.load(Ordering::Relaxed) > 0 { stalled + 1 } else { 0 };
        // Most that are seen once are over before anybody could help.
        if stalled > 1 {
            interpreter.errands.flush_streams();
        }
        if let Some(inbox) = interpreter.host.inbox() {
            scheduler.give_back(inbox);
            inbox.tick();
        }
        if tick.is_multiple_of(SWEEP_EVERY) {
            sweep(interpreter, now);
            // A signal that comes just before a system call does not end it, so there are more than
            // one. A thread that was given up is asked now and then: it may come to hear of it yet.
            let is_time = !scheduler.main_is_retired() || tick.is_multiple_of(ASK_RETIRED_EVERY);
            if is_time && scheduler.interrupted_on_main().is_some() {
                interpreter.interrupt_main();
            }
        }
    }
}

fn sweep(interpreter: &'static Interpreter, now: Instant) {
    let scheduler = &interpreter.scheduler;
    for ticket in scheduler.pending(now, PENDING) {
        if ticket.is_overdue(now) {
            expire(scheduler, &ticket);
        } else if !ticket.monitor(scheduler) {
            scheduler.cancel(&ticket);
        }
    }
    look_after_visitors(interpreter, now);
    interpreter.releases.look(interpreter, now);
    match interpreter.host.inbox() {
        Some(inbox) if scheduler.is_stuck(now) => inbox.give_up(),
        Some(_) => {}
        None => scheduler.retire_stuck(now),
    }
    for ticket in scheduler.take_stranded() {
        scheduler.fail(&ticket, Kind::Overloaded, STUCK);
    }
    interpreter.unblock_loop(now);
}

/// Whether callers inline are at anything.
#[cfg(not(feature = "limited"))]
fn has_visitors(interpreter: &Interpreter) -> bool {
    interpreter.visitors.are_inside()
}

#[cfg(feature = "limited")]
fn has_visitors(_: &Interpreter) -> bool {
    false
}

#[cfg(not(feature = "limited"))]
fn look_after_visitors(interpreter: &'static Interpreter, now: Instant) {
    for visit in interpreter.visitors.overdue(now) {
        crate::runner::spawn_interrupt(interpreter, visit);
    }
    interpreter.gate.pardon(now);
}

#[cfg(feature = "limited")]
fn look_after_visitors(_: &'static Interpreter, _: Instant) {}

fn expire(scheduler: &Scheduler, ticket: &Arc<Ticket>) {
    match ticket.phase() {
        Phase::Queued if scheduler.is_starting(ticket.pool()) => {
            scheduler.fail(ticket, Kind::Starting, "the pool was still starting when the time was up");
        }
        Phase::Queued => scheduler.fail(ticket, Kind::Timeout, UP_BEFORE),
        _ => scheduler.fail(ticket, Kind::Timeout, "the time was up while it ran"),
    }
}
