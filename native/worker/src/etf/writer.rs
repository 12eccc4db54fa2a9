//! Values of Python's as a term.

use std::collections::HashSet;

use py_core::View;
use py_core::convert::{SHARED_FROM, Write};
use pyo3::Py;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::*;

/// Maps of so many keys have each compared with each.
const FEW: usize = 8;

/// What is copied once, at the end.
enum Piece {
    Bytes(Py<PyBytes>),
    View(View),
}

/// A large binary of the term. It has a stand-in there: an improper list of where it begins among them and how
/// long it is. Python has no improper lists, so that stands for nothing else.
struct Large {
    /// Where the stand-in begins and ends.
    begin: usize,
    end: usize,
    /// What is in front of the bytes where they are in its place.
    head: [u8; 5],
    piece: Piece,
}

/// Large binaries begin at a multiple of this, as those who compute with them like it.
const ALIGNMENT: usize = 64;

/// To put binaries where their stand-ins are is to go through all of the term: it is small beside them.
const MOSTLY: usize = 64;

#[derive(Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
    large: Vec<Large>,
    /// The bytes of the large ones, behind one another.
    large_len: usize,
    /// Keys are compared as they are written.
    in_key: usize,
    /// Where the value written last begins.
    last: usize,
    /// The keys of the maps that are being written, as places in `bytes`.
    keys: Vec<(usize, usize)>,
    /// Objects that are referred to, by their numbers.
    pub objects: Vec<u64>,
}

impl Piece {
    fn len(&self) -> usize {
        Python::attach(|py| self.as_slice(py).len())
    }

    fn as_slice<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match self {
            Piece::Bytes(bytes) => bytes.as_bytes(py),
            Piece::View(view) => view.as_slice(),
        }
    }
}

/// What lies between bytes of this length and what is behind them.
fn gap(len: usize) -> &'static [u8] {
    &[0; ALIGNMENT][..len.next_multiple_of(ALIGNMENT) - len]
}

/// The bytes of a value.
#[derive(Clone, Copy)]
pub struct Written(usize, usize);

impl Writer {
    pub fn new(bytes: Vec<u8>) -> Self {
        Writer { bytes, ..Writer::default() }
    }

    /// Bytes that all of it takes.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.large_len
    }

    pub fn has_large(&self) -> bool {
        !self.large.is_empty()
    }

    /// Whether the term is little beside its large binaries.
    pub fn is_mostly_large(&self) -> bool {
        self.has_large() && self.large_len >= MOSTLY * self.bytes.len()
    }

    /// What was written from a place on, in order.
    pub fn parts<'a>(&'a self, py: Python<'a>, from: usize) -> Vec<&'a [u8]> {
        let mut parts = Vec::with_capacity(3 * self.large.len() + 1);
        let mut at = from;
        for large in &self.large {
            parts.extend([&self.bytes[at..large.begin], &large.head, large.piece.as_slice(py)]);
            at = large.end;
        }
        parts.push(&self.bytes[at..]);
        parts
    }

    /// What was written from a place on with the stand-ins, and what these stand for behind it; and how many
    /// bytes are in front of that.
    pub fn parts_behind<'a>(&'a self, py: Python<'a>, from: usize) -> (Vec<&'a [u8]>, usize) {
        let term = &self.bytes[from..];
        let mut parts = vec![term, gap(term.len())];
        for large in &self.large {
            let bytes = large.piece.as_slice(py);
            parts.extend([bytes, gap(bytes.len())]);
        }
        (parts, term.len().next_multiple_of(ALIGNMENT))
    }

    /// All of it in one.
    pub fn whole(self, py: Python<'_>) -> Vec<u8> {
        if self.large.is_empty() { self.bytes } else { self.parts(py, 0).concat() }
    }

    fn large(&mut self, piece: Piece) {
        let (begin, len) = (self.bytes.len(), piece.len());
        self.tag(BINARY);
        self.u32(len);
        let mut head = [0; 5];
        head.copy_from_slice(&self.bytes[begin..]);
        self.bytes.truncate(begin);
        let number = |value| i64::try_from(value).expect("what is in memory has a length");
        self.tag(LIST);
        self.u32(1);
        self.int(number(self.large_len));
        self.int(number(len));
        self.last = begin;
        self.large_len = (self.large_len + len).next_multiple_of(ALIGNMENT);
        self.large.push(Large { begin, end: self.bytes.len(), head, piece });
    }

    fn tag(&mut self, tag: u8) {
        self.last = self.bytes.len();
        self.bytes.push(tag);
    }

    fn u32(&mut self, value: usize) {
        // Beyond this no Erlang has lists, tuples, maps or binaries that cross.
        let value = u32::try_from(value).expect("lengths of values fit 32 bits");
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    fn has_twins(&self, first: usize) -> bool {
        let keys = &self.keys[first..];
        let bytes = |key: &(usize, usize)| &self.bytes[key.0..key.1];
        if keys.len() <= FEW {
            return (1..keys.len()).any(|n| keys[..n].iter().any(|key| bytes(key) == bytes(&keys[n])));
        }
        let mut seen = HashSet::with_capacity(keys.len());
        !keys.iter().all(|key| seen.insert(bytes(key)))
    }
}

impl Write for Writer {
    type Written = Written;

    fn last(&self) -> Option<Written> {
        Some(Written(self.last, self.bytes.len()))
    }

    fn again(&mut self, Written(begin, end): Written) {
        self.last = self.bytes.len();
        self.bytes.extend_from_within(begin..end);
    }

    fn none(&mut self) {
        self.atom("nil");
    }

    fn bool(&mut self, value: bool) {
        self.atom(if value { "true" } else { "false" });
    }

    fn int(&mut self, value: i64) {
        if let Ok(value) = u8::try_from(value) {
            self.tag(SMALL_INTEGER);
            self.bytes.push(value);
        } else if let Ok(value) = i32::try_from(value) {
            self.tag(INTEGER);
            self.bytes.extend_from_slice(&value.to_be_bytes());
        } else {
            let magnitude = value.unsigned_abs().to_le_bytes();
            let len = 8 - value.unsigned_abs().leading_zeros() as usize / 8;
            self.big(value < 0, &magnitude[..len]);
        }
    }

    fn big(&mut self, negative: bool, magnitude: &[u8]) -> bool {
        match u8::try_from(magnitude.len()) {
            Ok(len) => {
                self.tag(SMALL_BIG);
                self.bytes.push(len);
            }
            Err(_) => {
                let Ok(len) = u32::try_from(magnitude.len()) else { return false };
                self.tag(LARGE_BIG);
                self.bytes.extend_from_slice(&len.to_be_bytes());
            }
        }
        self.bytes.push(u8::from(negative));
        self.bytes.extend_from_slice(magnitude);
        true
    }

    fn float(&mut self, value: f64) {
        self.tag(NEW_FLOAT);
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Whether there is such an atom is found out where it is read.
    fn atom(&mut self, name: &str) -> bool {
        if name.chars().count() > 255 {
            return false;
        }
        match u8::try_from(name.len()) {
            Ok(len) => {
                self.tag(SMALL_ATOM_UTF8);
                self.bytes.push(len);
            }
            Err(_) => {
                self.tag(ATOM_UTF8);
                let len = u16::try_from(name.len()).expect("255 characters are no more than 1020 bytes");
                self.bytes.extend_from_slice(&len.to_be_bytes());
            }
        }
        self.bytes.extend_from_slice(name.as_bytes());
        true
    }

    fn binary(&mut self, bytes: &[u8]) {
        self.tag(BINARY);
        self.u32(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn shared_binary(&mut self, bytes: Py<PyBytes>, _len: usize) {
        if self.in_key == 0 {
            self.large(Piece::Bytes(bytes));
        } else {
            Python::attach(|py| self.binary(bytes.bind(py).as_bytes()));
        }
    }

    fn view(&mut self, view: View) {
        if self.in_key == 0 && view.as_slice().len() >= SHARED_FROM {
            self.large(Piece::View(view));
        } else {
            self.binary(view.as_slice());
        }
    }

    /// The bytes were made by an Erlang, or by somebody who wants trouble.
    fn opaque(&mut self, etf: &[u8]) -> bool {
        let Some((&VERSION, term)) = etf.split_first() else { return false };
        let is_one = matches!(
            term.first(),
            Some(&(NEW_PID | PID | NEW_PORT | PORT | V4_PORT | NEWER_REFERENCE | NEW_REFERENCE))
        );
        if !is_one || Document::new(term).is_err() {
            return false;
        }
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(term);
        true
    }

    /// The bytes came from the BEAM.
    fn function(&mut self, etf: &[u8]) -> bool {
        let Some((&VERSION, term)) = etf.split_first() else { return false };
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(term);
        true
    }

    /// The other side puts something in that tells when it is dropped.
    fn handle(&mut self, _object: &Bound<'_, PyAny>, number: Option<u64>) {
        self.objects.extend(number);
        self.none();
    }

    fn list(&mut self, len: usize) {
        if len > 0 {
            self.tag(LIST);
            self.u32(len);
        }
    }

    fn end_list(&mut self, _len: usize) {
        self.bytes.push(NIL);
    }

    fn tuple(&mut self, len: usize) {
        match u8::try_from(len) {
            Ok(len) => {
                self.tag(SMALL_TUPLE);
                self.bytes.push(len);
            }
            Err(_) => {
                self.tag(LARGE_TUPLE);
                self.u32(len);
            }
        }
    }

    fn end_tuple(&mut self, _len: usize) {}

    fn map(&mut self, len: usize) {
        self.tag(MAP);
        self.u32(len);
    }

    fn begin_key(&mut self) {
        self.in_key += 1;
        self.keys.push((self.bytes.len(), 0));
    }

    /// Keys of maps within the key are gone by now.
    fn end_key(&mut self) {
        self.in_key -= 1;
        if let Some(key) = self.keys.last_mut() {
            key.1 = self.bytes.len();
        }
    }

    fn end_map(&mut self, len: usize) -> bool {
        let first = self.keys.len().saturating_sub(len);
        let unique = !self.has_twins(first);
        self.keys.truncate(first);
        unique
    }
}
