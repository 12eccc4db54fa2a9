//! Objects that nobody refers to any more, let go of on threads of their own: what runs then is user code, which
//! may sit in a `__del__` for as long as it likes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::ffi::ThreadId;
use crate::interpreter::Interpreter;

/// Objects that are let go of before others may have the GIL.
const AT_ONCE: usize = 1_000;

/// A thread that is at one object for so long is left to it, if others wait.
const LATE: Duration = Duration::from_secs(1);

/// A finalizer that takes longer is interrupted, once.
const TOO_LATE: Duration = Duration::from_secs(30);

/// With so many threads that do not come back, what is dropped stays.
const MAX_THREADS: usize = 8;

#[derive(Default)]
pub struct Releases {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    objects: Vec<Py<PyAny>>,
    threads: Vec<Arc<Mutex<Progress>>>,
    waiting: usize,
}

/// What one thread is at.
#[derive(Default)]
struct Progress {
    thread: Option<ThreadId>,
    since: Option<Instant>,
    /// Somebody is on the way to interrupt it.
    is_asked: bool,
    was_interrupted: bool,
}

impl Progress {
    fn is_at_it_for(&self, now: Instant, limit: Duration) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Releases {
    pub fn release(&self, interpreter: &'static Interpreter, object: Py<PyAny>) {
        let mut state = lock(&self.state);
        state.objects.push(object);
        if state.waiting > 0 {
            self.came.notify_one();
        } else if state.threads.is_empty() {
            start(interpreter, &mut state);
        }
    }

    pub fn is_busy(&self) -> bool {
        let state = lock(&self.state);
        !state.objects.is_empty() || state.threads.iter().any(|progress| lock(progress).since.is_some())
    }

    /// Puts another thread beside those that are at one object for long, if others wait, and has what takes too
    /// long interrupted.
    pub fn look(&self, interpreter: &'static Interpreter, now: Instant) {
        let mut state = lock(&self.state);
        let mut all_late = true;
        for progress in &state.threads {
            let mut at = lock(progress);
            all_late &= at.is_at_it_for(now, LATE);
            if at.is_at_it_for(now, TOO_LATE) && !std::mem::replace(&mut at.is_asked, true) {
                interpreter.errands.interrupt_releases();
            }
        }
        if all_late && !state.objects.is_empty() && state.threads.len() < MAX_THREADS {
            start(interpreter, &mut state);
        }
    }

    /// Interrupts what takes too long. As long as the caller is attached, no thread goes on to another object.
    pub fn interrupt(&self, interpreter: &'static Interpreter, py: Python<'_>) {
        let now = Instant::now();
        for progress in &lock(&self.state).threads {
            let mut at = lock(progress);
            if at.is_at_it_for(now, TOO_LATE)
                && !std::mem::replace(&mut at.was_interrupted, true)
                && let Some(thread) = at.thread
            {
                thread.raise(interpreter.hooks.cancelled.bind(py));
            }
        }
    }

    /// Waits until there are objects.
    fn wait(&self) {
        let mut state = lock(&self.state);
        state.waiting += 1;
        let mut state = self
            .came
            .wait_while(state, |state| state.objects.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
    }

    fn next(&self) -> Option<Py<PyAny>> {
        lock(&self.state).objects.pop()
    }
}

/// Where no thread can be started, the watch tries again.
fn start(interpreter: &'static Interpreter, state: &mut State) {
    let progress = Arc::new(Mutex::new(Progress::default()));
    let serve = {
        let progress = Arc::clone(&progress);
        move |py: Python<'_>| serve(py, interpreter, &progress)
    };
    let thread = crate::runner::thread("py-release");
    if thread.spawn(move || crate::runner::attached(interpreter, serve)).is_ok() {
        state.threads.push(progress);
    }
}

fn serve(py: Python<'_>, interpreter: &'static Interpreter, progress: &Mutex<Progress>) {
    let releases = &interpreter.releases;
    let thread = ThreadId::current(py);
    lock(progress).thread = Some(thread);
    loop {
        for object in std::iter::from_fn(|| releases.next()).take(AT_ONCE) {
            lock(progress).since = Some(Instant::now());
            drop(object.into_bound(py));
            let mut at = lock(progress);
            at.since = None;
            at.is_asked = false;
            if std::mem::take(&mut at.was_interrupted) {
                // Perhaps too late: the next one must not feel it.
                thread.take_back(py);
            }
        }
        crate::runner::idle(py, interpreter, || {
            std::thread::yield_now();
            releases.wait();
        });
    }
}
