//! A wait ends; what waits in vain waits less often, and often again when it need not have been.

use std::time::{Duration, Instant};

use py_patience::{Patience, Prospect};

#[test]
fn a_wait_ends_after_its_time_and_not_before() {
    let begin = Instant::now();
    let mut patience = Patience::new();
    while !patience.is_over() {}
    assert!(begin.elapsed() >= Duration::from_micros(20));
}

/// Requests until the next that waits.
fn pause(prospect: &Prospect) -> usize {
    (0..).find(|_| prospect.is_good()).unwrap()
}

#[test]
fn pauses_double_up_to_a_limit_and_end_with_the_first_success() {
    let prospect = Prospect::default();
    assert_eq!(pause(&prospect), 0);
    let pauses: Vec<usize> = (0..12)
        .map(|_| {
            prospect.missed();
            pause(&prospect)
        })
        .collect();
    assert_eq!(pauses, [1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1023, 1023]);
    prospect.met();
    assert_eq!(pause(&prospect), 0);
    prospect.missed();
    assert_eq!(pause(&prospect), 1);
}
