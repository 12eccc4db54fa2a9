//! How long a call inline takes. To read the clock twice would be a tenth of a short call, so the
//! watch's ticks tell whether there is something to measure: while there is none, no time has passed.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::gate::OVERRUN;
use crate::scheduler::Scheduler;
use crate::watch::TICK;

/// What a call took of its scheduler's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// There was no tick meanwhile.
    Little,
    /// There was one. The call may have been short, but whose calls take half of the time are hit by
    /// half of the ticks, and so answer for it.
    ATick,
    /// More than a call inline should take.
    TooLong(Duration),
}

#[derive(Clone, Copy)]
pub struct Stopwatch {
    tick: u64,
    /// At this call's begin, or at another's in the same tick.
    read: Instant,
    is_exact: bool,
}

thread_local! {
    static LAST: Cell<Option<Stopwatch>> = const { Cell::new(None) };
}

impl Stopwatch {
    pub fn start(scheduler: &Scheduler) -> Self {
        // The watch ticks whenever it is awake; and the tick is new after it slept.
        scheduler.rouse_watch();
        let tick = scheduler.tick();
        match LAST.get() {
            Some(last) if last.tick == tick => Stopwatch { is_exact: false, ..last },
            _ => {
                let stopwatch = Stopwatch { tick, read: Instant::now(), is_exact: true };
                LAST.set(Some(stopwatch));
                stopwatch
            }
        }
    }

    /// When it was started at the latest.
    pub fn started(&self) -> Instant {
        if self.is_exact { self.read } else { self.read + TICK }
    }

    pub fn stop(&self, scheduler: &Scheduler) -> Took {
        let ticks = scheduler.tick() - self.tick;
        if ticks == 0 {
            return Took::Little;
        }
        let time = self.read.elapsed();
        // From one tick to the next it takes as long as a call may.
        if (self.is_exact || ticks > 1) && time >= OVERRUN { Took::TooLong(time) } else { Took::ATick }
    }
}
