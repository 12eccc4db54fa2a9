//! How long a call inline takes. To read the clock twice would be a tenth of a short call, so the
//! watch's ticks tell whether there is something to measure: while there is none, no time has passed.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::ffi::Usage;
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
    TooLong(Lap),
}

/// How long a call took that took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lap {
    pub time: Duration,
    /// Otherwise this is the most that it may have been: others ran before it in the same tick.
    pub is_certain: bool,
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
    /// As of when the last one read the clock.
    static USAGE: Cell<Option<Usage>> = const { Cell::new(None) };
}

impl Stopwatch {
    /// `closely`: not from when another call began in the same tick.
    pub fn start(scheduler: &Scheduler, closely: bool) -> Self {
        // The watch ticks whenever it is awake; and the tick is new after it slept.
        scheduler.rouse_watch();
        let tick = scheduler.tick();
        match LAST.get() {
            Some(last) if last.tick == tick && !closely => Stopwatch { is_exact: false, ..last },
            _ => {
                let stopwatch = Stopwatch { tick, read: Instant::now(), is_exact: true };
                LAST.set(Some(stopwatch));
                USAGE.set(Usage::now());
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
        // From one tick to the next it takes as long as a call may.
        if self.is_exact || ticks > 1 {
            let time = self.read.elapsed();
            let time = if time >= OVERRUN { own(time) } else { time };
            if time >= OVERRUN {
                return Took::TooLong(Lap { time, is_certain: self.is_exact });
            }
        }
        Took::ATick
    }
}

/// Of the time since the clock was read, what was not spent waiting for a processor, as far as that
/// can be told: whoever waited for nothing else has used the rest.
fn own(time: Duration) -> Duration {
    match (USAGE.get(), Usage::now()) {
        (Some(before), Some(now)) if before.waits == now.waits => now.time.saturating_sub(before.time),
        _ => time,
    }
}
