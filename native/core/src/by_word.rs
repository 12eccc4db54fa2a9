//! Maps whose keys are addresses, atoms or pids: words that differ in their middle bits, and that
//! nobody outside can choose.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Hashing costs one multiplication.
pub type ByWord<T> = HashMap<u64, T, BuildHasherDefault<WordHasher>>;

#[derive(Default)]
pub struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only words are hashed");
    }

    fn write_u64(&mut self, word: u64) {
        // Fibonacci hashing: the table takes its index from the low bits and its tag from the high.
        self.0 = word.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
