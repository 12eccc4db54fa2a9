//! Lanes: the way of a short call, every way out of it, and that each request is answered once.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use py_shared::{LANE_ROOM, Lane, Progress, Segment};

fn segment() -> Segment {
    Segment::create(1).unwrap()
}

fn read(lane: Lane<'_>) -> Vec<u8> {
    let mut bytes = vec![0; lane.answer_len()];
    lane.read(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_short_call_goes_both_ways() {
    let segment = segment();
    let lane = Lane::of(&segment).unwrap();
    assert!(!lane.claim(3), "a worker that does not look is not asked");
    lane.open();
    assert!(lane.claim(3));
    assert!(!lane.claim(3), "there is room for one");
    assert!(lane.take().is_none(), "nothing is asked yet");
    assert!(lane.ask(&[b"a", b"sk"]));
    assert_eq!(lane.progress(), Progress::Waits);
    assert_eq!(lane.take().unwrap(), b"ask");
    assert!(lane.take().is_none(), "it is taken once");
    assert!(lane.answer(b"answer"));
    assert_eq!(lane.progress(), Progress::Answered);
    assert!(!lane.leave(), "who was answered need not leave");
    assert_eq!(read(lane), b"answer");
    assert!(lane.is_free());
    assert_eq!(lane.taken_ever(), 1);
}

#[test]
fn what_is_not_taken_can_be_withdrawn() {
    let segment = segment();
    let lane = Lane::of(&segment).unwrap();
    lane.open();
    assert!(lane.claim(3));
    assert!(lane.ask(&[b"ask"]));
    assert!(lane.withdraw());
    assert!(lane.take().is_none());
    assert!(lane.claim(3));
    lane.close();
    assert!(!lane.ask(&[b"ask"]), "the worker fell asleep meanwhile");
    assert!(lane.take().is_none());
    assert!(lane.is_free());
}

#[test]
fn a_worker_that_stops_looking_takes_what_was_asked_before() {
    let segment = segment();
    let lane = Lane::of(&segment).unwrap();
    lane.open();
    assert!(lane.claim(3));
    assert!(lane.ask(&[b"ask"]));
    lane.close();
    assert_eq!(lane.take().unwrap(), b"ask");
    assert!(!lane.withdraw());
}

#[test]
fn the_answer_to_who_left_goes_another_way() {
    let segment = segment();
    let lane = Lane::of(&segment).unwrap();
    lane.open();
    assert!(lane.claim(3));
    assert!(lane.ask(&[b"ask"]));
    lane.take().unwrap();
    assert!(lane.leave());
    assert!(!lane.answer(b"answer"), "nobody is there to read it");
    lane.left();
    assert!(!lane.claim(3), "the worker is still at it");
    lane.decline();
    assert!(lane.is_free());
}

#[test]
fn what_is_too_long_goes_another_way() {
    let segment = segment();
    let lane = Lane::of(&segment).unwrap();
    lane.open();
    assert!(!lane.claim(LANE_ROOM + 1));
    assert!(lane.claim(LANE_ROOM));
    assert!(!lane.ask(&[&[1; LANE_ROOM], b"more"]), "it was said to be shorter");
    assert!(lane.is_free());
    assert!(lane.claim(LANE_ROOM));
    assert!(lane.ask(&[&[1; LANE_ROOM]]));
    assert_eq!(lane.take().unwrap(), [1; LANE_ROOM]);
    assert!(!lane.answer(&[2; LANE_ROOM + 1]));
    thread::scope(|scope| {
        scope.spawn(|| lane.decline());
        while lane.progress() != Progress::Long {
            thread::yield_now();
        }
        assert!(lane.leave());
        lane.left();
    });
    assert!(lane.is_free());
}

#[test]
fn nobody_gets_into_a_lane_that_is_shut() {
    let segment = segment();
    let lane = Lane::of(&segment).unwrap();
    lane.open();
    lane.shut();
    assert!(!lane.claim(3));
    assert!(lane.is_free());
}

#[test]
fn a_length_that_a_worker_spoilt_harms_nobody() {
    let segment = segment();
    let lane = Lane::of(&segment).unwrap();
    lane.open();
    assert!(lane.claim(3));
    assert!(lane.ask(&[b"ask"]));
    lane.take().unwrap();
    for index in 0..segment.size() / 8 {
        segment.word(index).unwrap().store(u64::MAX, Ordering::Relaxed);
    }
    assert!(lane.answer_len() <= LANE_ROOM);
    assert_eq!(lane.progress(), Progress::Waits);
    assert!(lane.leave(), "a state that is none keeps nobody");
}

/// Callers that leave at random moments, a worker that dawdles, sleeps and declines at random.
#[test]
fn each_request_is_answered_once() {
    const CALLERS: u64 = 3;
    let rounds: u64 = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    let segment = segment();
    let lane = Lane::of(&segment).unwrap();
    let over = AtomicBool::new(false);
    let elsewhere = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut ran = HashSet::new();
            let mut dice = Dice(1);
            while !over.load(Ordering::Relaxed) {
                lane.open();
                if dice.roll(4) == 0 {
                    lane.close();
                }
                let Some(bytes) = lane.take() else { continue };
                let request = u64::from_ne_bytes(bytes.try_into().unwrap());
                assert!(ran.insert(request), "{request} ran twice");
                dice.dawdle();
                if dice.roll(5) == 0 || !lane.answer(&request.to_ne_bytes()) {
                    lane.decline();
                    assert!(elsewhere.lock().unwrap().remove(&request), "nobody waits for {request}");
                }
            }
            ran.len() as u64
        });
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (lane, elsewhere) = (&lane, &elsewhere);
                scope.spawn(move || {
                    let mut dice = Dice(caller + 2);
                    (0..rounds).filter(|round| ask(*lane, elsewhere, caller << 32 | round, &mut dice)).count()
                        as u64
                })
            })
            .collect();
        let asked: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        over.store(true, Ordering::Relaxed);
        assert_eq!(worker.join().unwrap(), asked);
        assert!(asked > 0);
    });
    assert!(elsewhere.lock().unwrap().is_empty(), "all that left were answered");
}

/// True where the worker took the request.
fn ask(lane: Lane<'_>, elsewhere: &Mutex<HashSet<u64>>, request: u64, dice: &mut Dice) -> bool {
    if !lane.claim(8) || !lane.ask(&[&request.to_ne_bytes()]) {
        thread::yield_now();
        return false;
    }
    let begin = Instant::now();
    let patience = Duration::from_nanos(dice.roll(2_000));
    loop {
        let progress = lane.progress();
        if progress == Progress::Answered {
            assert_eq!(read(lane), request.to_ne_bytes());
            return true;
        }
        let over = begin.elapsed() > patience;
        if over && lane.withdraw() {
            return false;
        }
        if (over || progress == Progress::Long) && lane.leave() {
            elsewhere.lock().unwrap().insert(request);
            lane.left();
            return true;
        }
        std::hint::spin_loop();
    }
}

/// Numbers that look random, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn dawdle(&mut self) {
        for _ in 0..self.roll(300) {
            std::hint::spin_loop();
        }
    }
}
