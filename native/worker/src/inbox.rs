//! What comes from the BEAM. Whoever has nothing better to do reads it: the main thread while it
//! waits, the watch while the main thread is at something long.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use py_core::wire::Inbox as CoreInbox;
use py_core::{Interpreter, Pool, Ticket, Wire};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::etf::Malformed;
use crate::ffi;
use crate::frames::{self, Fields, incoming, outgoing};
use crate::lock;
use crate::outbox::{Frame, Outbox};
use crate::request::{Answered, Body, Request, Start, Way};
use crate::segments::Segments;

/// How long the main thread looks for requests before it sleeps: to be woken costs more than that.
const SPIN: Duration = Duration::from_micros(50);

/// How often it looks into the lane before it looks into the pipe, which is a system call.
const LOOKS: usize = 16;

/// How often it looks there for what whoever was just answered asks next: some microseconds.
const LINGER: usize = 100;

/// Ids of cancelled requests that may still come.
const MAX_CANCELLED: usize = 1024;

pub struct Inbox {
    pipe: OwnedFd,
    bell: OwnedFd,
    sleeps: AtomicBool,
    stream: Mutex<Stream>,
    cancelled: Mutex<Vec<u64>>,
    may_spin: bool,
    pub out: &'static Outbox,
    pub segments: Segments,
    pub pool: OnceLock<Arc<Pool>>,
    pub interpreter: OnceLock<&'static Interpreter>,
}

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    /// Where what was read and not looked at ends.
    end: usize,
}

/// So much is read at once.
const CHUNK: usize = 64 * 1024;

impl Inbox {
    pub fn new(pipe: OwnedFd, out: &'static Outbox, segments: Segments) -> std::io::Result<Self> {
        unblock(&pipe)?;
        Ok(Inbox {
            pipe,
            bell: new_bell()?,
            sleeps: AtomicBool::new(false),
            stream: Mutex::default(),
            cancelled: Mutex::default(),
            may_spin: std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1),
            out,
            segments,
            pool: OnceLock::new(),
            interpreter: OnceLock::new(),
        })
    }

    /// Goes on with another pipe, in a process that was forked when nothing was read and nobody slept.
    pub fn reopen(&self, pipe: OwnedFd) -> std::io::Result<()> {
        unblock(&pipe)?;
        ffi::replace(&self.pipe, &pipe)?;
        ffi::replace(&self.bell, &new_bell()?)
    }

    /// Waits for the first frame.
    pub fn first(&self) -> Vec<u8> {
        let mut stream = lock(&self.stream);
        loop {
            let (frames, used) = frames::split(&stream.bytes[..stream.end]);
            if let Some(first) = frames.first() {
                let frame = first.to_vec();
                assert!(
                    used == frame.len() + 4,
                    "the BEAM sends one frame, and the next when that was answered"
                );
                stream.end = 0;
                return frame;
            }
            self.sleep();
            self.read(&mut stream);
        }
    }

    /// Cancels the request of this number, wherever it is: it may not have come here yet.
    pub fn cancel(&'static self, id: u64) {
        let Some(pool) = self.pool.get() else { return };
        // The control thread reads no requests: one may name a segment that is on its way to this very
        // thread. With the lock held: nothing is submitted between the search and the note that it is to come.
        let mut cancelled = lock(&self.cancelled);
        if pool.cancel_id(id) {
            return;
        }
        if cancelled.len() == MAX_CANCELLED {
            cancelled.remove(0);
        }
        cancelled.push(id);
    }

    /// Reads what there is and submits it; false where there was nothing.
    fn receive(&'static self, stream: &mut Stream) -> bool {
        if !self.read(stream) {
            return false;
        }
        let (frames, used) = frames::split(&stream.bytes[..stream.end]);
        for frame in frames {
            self.take(frame).unwrap_or_else(|_| leave_nonsense());
        }
        // The beginning of a long frame stays where it is, however many times there is more of it.
        if used > 0 {
            stream.bytes.copy_within(used..stream.end, 0);
            stream.end -= used;
        }
        true
    }

    fn read(&self, stream: &mut Stream) -> bool {
        if stream.bytes.len() < stream.end + CHUNK {
            stream.bytes.resize(stream.end + CHUNK, 0);
        }
        match rustix::io::read(&self.pipe, &mut stream.bytes[stream.end..]) {
            // The Port is closed: nobody will ask any more.
            Ok(0) => crate::leave(),
            Ok(count) => {
                stream.end += count;
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => crate::leave(),
        }
    }

    fn look_in_lane(&'static self, looks: usize) -> Option<(Request, u64)> {
        (0..looks).find_map(|_| {
            std::hint::spin_loop();
            self.take_in_lane()
        })
    }

    /// What was asked in the lane, and its deadline.
    fn take_in_lane(&'static self) -> Option<(Request, u64)> {
        let frame = self.out.page.lane()?.take()?;
        let mut fields = Fields(&frame);
        let mut request = || {
            fields.u8()?;
            let (verb, id, deadline) = (fields.u8()?, fields.u64()?, fields.u64()?);
            Ok((Request::new(self, verb, id, Body::new(fields.0)?, Way::Lane)?, deadline))
        };
        Some(request().unwrap_or_else(|Malformed| leave_nonsense()))
    }

    /// Submits what was asked in the lane; false where nothing was.
    fn receive_in_lane(&'static self, looks: usize) -> bool {
        let (Some(pool), Some((request, deadline))) = (self.pool.get(), self.look_in_lane(looks)) else {
            return false;
        };
        self.submit(pool, request, deadline);
        true
    }

    fn take(&'static self, frame: &[u8]) -> Result<(), Malformed> {
        let mut fields = Fields(frame);
        let pool = self.pool.get().ok_or(Malformed)?;
        match fields.u8()? {
            incoming::REQUEST => {
                let (verb, id, deadline) = (fields.u8()?, fields.u64()?, fields.u64()?);
                self.submit(pool, Request::new(self, verb, id, Body::new(fields.0)?, Way::Pipe)?, deadline);
                Ok(())
            }
            incoming::SHARED_REQUEST => {
                let (verb, id, deadline) = (fields.u8()?, fields.u64()?, fields.u64()?);
                let (segment, len) = (fields.u32()?, fields.u64()?);
                let len = usize::try_from(len).map_err(|_| Malformed)?;
                let lease = self.segments.lease(self.out, segment, len)?;
                self.submit(pool, Request::new(self, verb, id, Body::shared(lease)?, Way::Pipe)?, deadline);
                Ok(())
            }
            incoming::START => {
                let (id, deadline) = (fields.u64()?, fields.u64()?);
                let start = Start::new(self, Some(Arc::clone(pool)), id, Body::new(fields.0)?);
                pool.start(pool.ticket(start, crate::left(deadline))).map_err(|_| Malformed)
            }
            incoming::ANSWER => {
                let number = fields.u64()?;
                let answer = Answered::new(fields.0)?;
                if let Some(interpreter) = self.interpreter.get() {
                    interpreter.questions.answer(number, Box::new(answer));
                }
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    fn submit(&self, pool: &Pool, request: Request, deadline: u64) {
        let id = request.id();
        let mut cancelled = lock(&self.cancelled);
        if let Some(place) = cancelled.iter().position(|other| *other == id) {
            cancelled.swap_remove(place);
        } else if pool.submit(pool.ticket(request, crate::left(deadline))).is_err() {
            self.out.put(&Frame::new(outgoing::GIVEN_BACK).u64(id));
        }
    }

    fn spin(&'static self, stream: &mut Stream) -> bool {
        if !self.may_spin {
            return false;
        }
        self.open_lane();
        let begin = Instant::now();
        while begin.elapsed() < SPIN {
            if self.receive_in_lane(LOOKS) || self.receive(stream) {
                return true;
            }
            // Whoever is about to send may be waiting for this core.
            std::thread::yield_now();
        }
        self.close_lane();
        // Somebody may have asked just before that.
        self.receive_in_lane(1)
    }

    /// Only the main thread looks into the lane, at once or when it is done with something short.
    fn open_lane(&self) {
        if self.may_spin
            && let Some(lane) = self.out.page.lane()
        {
            lane.open();
        }
    }

    fn close_lane(&self) {
        if let Some(lane) = self.out.page.lane() {
            lane.close();
        }
    }

    fn sleep(&self) {
        let mut fds = [PollFd::new(&self.pipe, PollFlags::IN), PollFd::new(&self.bell, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
    }
}

impl CoreInbox for &'static Inbox {
    fn wait(&self, woken: &AtomicBool) {
        self.out.flush();
        {
            let mut stream = lock(&self.stream);
            if self.receive(&mut stream) || self.spin(&mut stream) {
                return;
            }
        }
        self.sleeps.store(true, Ordering::SeqCst);
        // Whoever woke us before that rang no bell: another thread may have read what we would wait for.
        if !woken.load(Ordering::SeqCst) {
            self.sleep();
        }
        self.sleeps.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        if self.sleeps.load(Ordering::SeqCst) {
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn urgent(&self, linger: bool) -> Option<Arc<Ticket>> {
        let pool = self.pool.get()?;
        let looks = if linger && self.may_spin { LINGER } else { 1 };
        let (request, deadline) = self.look_in_lane(looks)?;
        Some(pool.ticket(request, crate::left(deadline)))
    }

    fn look(&self) {
        // Whoever has the lock reads already.
        if let Ok(mut stream) = self.stream.try_lock() {
            while self.receive(&mut stream) {}
        }
    }

    fn crowded(&self, crowded: bool) {
        if crowded {
            self.close_lane()
        } else {
            self.open_lane()
        }
        self.out.keep(&Frame::new(outgoing::CROWDED).u8(u8::from(crowded)));
    }

    fn tick(&self) {
        self.out.flush();
    }

    fn give_up(&self) {
        self.out.put(&Frame::new(outgoing::STUCK));
        self.out.flush();
        crate::leave();
    }
}

fn leave_nonsense() -> ! {
    eprintln!("py: the BEAM sent what is no request; this is a bug, please report it");
    crate::leave();
}

fn unblock(pipe: &OwnedFd) -> rustix::io::Result<()> {
    fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)
}

fn new_bell() -> rustix::io::Result<OwnedFd> {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
}
