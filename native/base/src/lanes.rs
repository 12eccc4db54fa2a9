//! The callers' side of the lanes of a pool's workers.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};

use py_patience::{Patience, Prospect};
use py_shared::{Lane, Progress};
use rustler::schedule::consume_timeslice;
use rustler::{
    Atom, Binary, Encoder, Env, Error, LocalPid, NewBinary, NifResult, Resource, ResourceArc, Term,
};

use crate::handle::{HandleResource, Owner};
use crate::segment::SegmentResource;

mod atoms {
    rustler::atoms! { ok, busy, left, py_left }
}

/// The numbers of requests in a lane are above those of others, and still small integers in the BEAM.
const FIRST_ID: u64 = 1 << 58;

/// The frame of a request: see `native/worker/src/frames.rs`.
const REQUEST: u8 = 3;

/// Lanes come and go with workers; who asks takes what there is at the moment.
pub struct LanesResource {
    entries: RwLock<Entries>,
    /// The number of the next request: workers tell by it which had begun.
    next_id: AtomicU64,
}

type Entries = Arc<Vec<Arc<Entry>>>;

#[rustler::resource_impl]
impl Resource for LanesResource {}

struct Entry {
    worker: u64,
    segment: ResourceArc<SegmentResource>,
    prospect: Prospect,
}

impl Entry {
    fn lane(&self) -> Option<Lane<'_>> {
        Lane::of(self.segment.get().ok()?)
    }
}

impl LanesResource {
    fn entries(&self) -> Entries {
        Arc::clone(&self.entries.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Entry>>)) {
        change(Arc::make_mut(&mut self.entries.write().unwrap_or_else(PoisonError::into_inner)));
    }

    /// A lane claimed for a request of so many bytes, that of one worker or any. Where all are in use for a
    /// short call, this waits a moment: there are as many schedulers that may be about to leave one.
    fn claim(&self, len: usize, worker: Option<u64>) -> Option<(Arc<Entry>, u64)> {
        let entries = self.entries();
        let is_wanted = |entry: &&Arc<Entry>| worker.is_none_or(|worker| entry.worker == worker);
        let mut patience = Patience::new();
        let mut is_good: fn(&Prospect) -> bool = Prospect::is_good;
        loop {
            let mut is_promising = false;
            for entry in entries.iter().filter(is_wanted).filter(|entry| is_good(&entry.prospect)) {
                let lane = entry.lane()?;
                if lane.claim(len) {
                    return Some((Arc::clone(entry), self.next_id.fetch_add(1, Relaxed)));
                }
                is_promising |= lane.is_promising();
            }
            if !is_promising || patience.is_over() {
                return None;
            }
            is_good = Prospect::is_still_good;
        }
    }
}

#[rustler::nif]
fn lanes_new() -> ResourceArc<LanesResource> {
    ResourceArc::new(LanesResource { entries: RwLock::default(), next_id: AtomicU64::new(FIRST_ID) })
}

/// Opens the lane in the page of a worker, which has that number.
#[rustler::nif]
fn lanes_add(lanes: ResourceArc<LanesResource>, worker: u64, page: ResourceArc<SegmentResource>) -> bool {
    let entry = Entry { worker, segment: page, prospect: Prospect::default() };
    let fits = entry.lane().is_some();
    if fits {
        lanes.change(|entries| entries.push(Arc::new(entry)));
    }
    fits
}

/// Lets nobody into the lane of that worker any more.
#[rustler::nif]
fn lanes_remove(lanes: ResourceArc<LanesResource>, worker: u64) -> Atom {
    for entry in lanes.entries().iter().filter(|entry| entry.worker == worker) {
        if let Some(lane) = entry.lane() {
            lane.shut();
        }
    }
    lanes.change(|entries| entries.retain(|entry| entry.worker != worker));
    atoms::ok()
}

/// Is nobody in the lane of this page?
#[rustler::nif]
fn lane_free(page: ResourceArc<SegmentResource>) -> NifResult<bool> {
    Ok(Lane::of(page.get()?).is_none_or(|lane| lane.is_free()))
}

/// Requests that came through the lane of this page, ever.
#[rustler::nif]
fn lane_calls(page: ResourceArc<SegmentResource>) -> NifResult<u64> {
    Ok(Lane::of(page.get()?).map_or(0, |lane| lane.taken_ever()))
}

/// Asks the worker of that number, or the first one that looks for requests, and waits for its answer: the
/// frame, `busy` where there is none, or `left` when the answer will come as others do: `board` has been told
/// of the request then. Of an answer that refers to objects it has what stands for them, too: whenever its
/// caller is killed, they are let go of.
#[rustler::nif]
fn lanes_ask<'a>(
    env: Env<'a>,
    lanes: ResourceArc<LanesResource>,
    (board, pool, worker): (LocalPid, Atom, Option<u64>),
    reference: Term<'a>,
    verb: u8,
    deadline: u64,
    body: Binary<'a>,
) -> NifResult<Term<'a>> {
    let busy = || atoms::busy().encode(env);
    let Some((entry, id)) = lanes.claim(body.len() + HEAD, worker) else { return Ok(busy()) };
    let lane = entry.lane().ok_or(Error::BadArg)?;
    if !lane.ask(&[&head(verb, id, deadline), &body]) {
        return Ok(busy());
    }
    let mut patience = Patience::new();
    loop {
        let progress = lane.progress();
        if progress == Progress::Answered {
            entry.prospect.met();
            consume_timeslice(env, 1);
            let mut answer = NewBinary::new(env, lane.answer_len());
            lane.read(&mut answer).map_err(|_| Error::BadArg)?;
            let Some(numbers) = referred(&answer) else { return Ok(Term::from(answer)) };
            let owner = Owner { pool, board, worker: entry.worker };
            let handles: Vec<_> =
                numbers.map(|number| (number, HandleResource::new(owner, number))).collect();
            return Ok((handles, Term::from(answer)).encode(env));
        }
        let over = patience.is_over();
        if over && lane.withdraw() {
            entry.prospect.missed();
            return Ok(busy());
        }
        if (over || progress == Progress::Long) && lane.leave() {
            // The caller may be killed now: whoever is told of its request looks after it. The answer is
            // not given before the worker sees that it has left.
            let request = (id, verb, deadline, env.pid(), reference, body);
            let _nobody_waits = env.send(&board, (atoms::py_left(), entry.worker, request));
            lane.left();
            entry.prospect.missed();
            consume_timeslice(env, Patience::TURN);
            return Ok(atoms::left().encode(env));
        }
    }
}

/// The numbers of the objects that an answer refers to, if it is one that does.
fn referred(answer: &[u8]) -> Option<impl Iterator<Item = u64>> {
    let rest = answer.strip_prefix(&[REFERRING])?.get(8 + 8..)?;
    let (count, numbers) = rest.split_first_chunk()?;
    let (numbers, _) = numbers.as_chunks();
    Some(numbers.iter().take(u32::from_be_bytes(*count) as usize).map(|number| u64::from_be_bytes(*number)))
}

/// The kind of an answer that does. See native/worker/src/frames.rs.
const REFERRING: u8 = 14;

const HEAD: usize = 1 + 1 + 8 + 8;

fn head(verb: u8, id: u64, deadline: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0] = REQUEST;
    head[1] = verb;
    head[2..10].copy_from_slice(&id.to_be_bytes());
    head[10..].copy_from_slice(&deadline.to_be_bytes());
    head
}
