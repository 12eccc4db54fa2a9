//! How long a scheduler of the BEAM looks for an answer itself, and when that is worth it.
//!
//! To put a process to sleep and to wake it takes several microseconds, more than many calls do. So
//! the scheduler of a caller looks on for a moment; where calls turn out to take longer, it does so
//! less and less often.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// What a process pays for being asleep and awake again, and the scheduler for another process.
const PATIENCE: Duration = Duration::from_micros(20);

/// How long a short call takes, with the one before it.
const EXPECTED: Duration = Duration::from_micros(4);

/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// After how many waits in vain in a row the pauses get no longer: 2 to this power requests.
const MOST_MISSES: u32 = 10;

/// One wait. Where it was in vain a process has used up so much of its turn, in percent.
pub struct Patience {
    begin: Instant,
    looks: u32,
}

impl Patience {
    /// How much of a process's turn of about a millisecond a wait in vain takes, in percent.
    pub const TURN: i32 = 2;

    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Patience { begin: Instant::now(), looks: 0 }
    }

    /// To be asked between two looks.
    pub fn is_over(&mut self) -> bool {
        std::hint::spin_loop();
        self.looks += 1;
        if !self.looks.is_multiple_of(LOOKS) {
            return false;
        }
        let waited = self.begin.elapsed();
        if waited > EXPECTED {
            // Whoever is waited for may be waiting for this core.
            std::thread::yield_now();
        }
        waited > PATIENCE
    }
}

/// Whether to wait for a kind of answer. What took longer is likely to be followed by more of that, so
/// after each wait in vain twice as many requests do without.
#[derive(Debug, Default)]
pub struct Prospect {
    misses: AtomicU32,
    pause: AtomicU32,
}

impl Prospect {
    /// To be asked once for each request.
    pub fn is_good(&self) -> bool {
        let pause = self.pause.load(Relaxed);
        if pause > 0 {
            // Two at once count as one, which harms nobody.
            self.pause.store(pause - 1, Relaxed);
        }
        pause == 0
    }

    /// The same for a request that has asked already.
    pub fn is_still_good(&self) -> bool {
        self.pause.load(Relaxed) == 0
    }

    /// The wait was in vain.
    pub fn missed(&self) {
        let misses = self.misses.load(Relaxed).min(MOST_MISSES - 1) + 1;
        self.misses.store(misses, Relaxed);
        self.pause.store((1 << misses) - 1, Relaxed);
    }

    /// The answer came in time.
    pub fn met(&self) {
        if self.misses.load(Relaxed) > 0 {
            self.misses.store(0, Relaxed);
        }
    }
}
