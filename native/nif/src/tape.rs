//! Requests as plain bytes: recorded in the caller's process and played on another thread, which
//! costs less than to copy the terms into an environment and to read them there.

use std::cell::RefCell;

use py_core::convert::refused::{BITSTRING, IMPROPER, NOT_BINARY};
use py_core::convert::{Opaque, Read, Token, Verb};
use rustler::{Binary, ResourceArc, Term, TermType};
use smallvec::SmallVec;

use crate::atoms;
use crate::ffi::{self, Elements, Entries};
use crate::object::ObjectResource;
use crate::terms;

/// What is recorded: longer texts are better shared with the caller than copied.
pub struct Limits {
    bytes: usize,
    text: usize,
    functions: bool,
}

/// On a scheduler, at first sight.
pub const SMALL: Limits = Limits { bytes: 1024, text: 1024, functions: false };

/// On a scheduler that was told how many parts there are.
pub const MEDIUM: Limits = Limits { bytes: 64 * 1024, text: 1024, functions: false };

/// On a dirty scheduler.
pub const LARGE: Limits = Limits { bytes: usize::MAX, text: 16 * 1024, functions: true };

/// Terms that nest deeper are not recorded: the recorder recurses, on a scheduler's stack.
const DEPTH: usize = 500;

const ATOM: u8 = 0;
const INT: u8 = 1;
const FLOAT: u8 = 2;
const TEXT: u8 = 3;
const BYTES: u8 = 4;
const LIST: u8 = 5;
const TUPLE: u8 = 6;
const MAP: u8 = 7;
const STRUCT: u8 = 8;
const NEGATIVE: u8 = 9;
const POSITIVE: u8 = 10;
const PID: u8 = 11;
const REFERENCE: u8 = 12;
const PORT: u8 = 13;
const REFUSED: u8 = 14;
const VIEW: u8 = 15;
const FUNCTION: u8 = 16;
const OBJECT: u8 = 17;

/// Why a term is refused, by the number on the tape.
const REFUSALS: [&str; 3] = [IMPROPER, BITSTRING, NOT_BINARY];

pub struct Tape {
    verb: Verb,
    bytes: SmallVec<[u8; FEW]>,
    objects: Objects,
}

/// What references on the tape hold, so that it is there when that is played.
type Objects = Vec<ResourceArc<ObjectResource>>;

/// So many bytes are part of the request, where whoever reads it finds them at once.
const FEW: usize = 96;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Tape {
    /// None where the request is beyond the limits, or nests deeply.
    pub fn record(verb: Verb, parts: Elements<'_>, limits: &Limits) -> Option<Self> {
        let mut draft = Draft::record(parts, limits)?;
        let is_small = draft.bytes.len() <= MEDIUM.bytes;
        let bytes = if is_small {
            SmallVec::from_slice(&draft.bytes)
        } else {
            SmallVec::from_vec(std::mem::take(&mut draft.bytes))
        };
        Some(Tape { verb, bytes, objects: std::mem::take(&mut draft.objects) })
    }

    pub fn verb(&self) -> Verb {
        self.verb
    }

    pub fn play(&self) -> Player<'_> {
        Player { rest: &self.bytes, objects: &self.objects }
    }
}

/// What is played on the thread that recorded it: the thread has one, and gets it back.
pub struct Draft {
    bytes: Vec<u8>,
    objects: Objects,
}

impl Draft {
    /// None where the request is beyond the limits, or nests deeply.
    pub fn record(parts: Elements<'_>, limits: &Limits) -> Option<Self> {
        let mut draft = Draft { bytes: SCRATCH.take(), objects: Vec::new() };
        draft.bytes.clear();
        Recorder { bytes: &mut draft.bytes, objects: &mut draft.objects, limits }.put_all(parts)?;
        Some(draft)
    }

    pub fn play(&self) -> Player<'_> {
        Player { rest: &self.bytes, objects: &self.objects }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        SCRATCH.set(std::mem::take(&mut self.bytes));
    }
}

struct Recorder<'a> {
    bytes: &'a mut Vec<u8>,
    objects: &'a mut Objects,
    limits: &'a Limits,
}

impl Recorder<'_> {
    fn put_all(&mut self, parts: Elements<'_>) -> Option<()> {
        for part in parts {
            self.put(part, DEPTH)?;
        }
        Some(())
    }

    fn put(&mut self, term: Term<'_>, depth: usize) -> Option<()> {
        if ffi::is_nil(term) {
            return self.count(LIST, 0);
        }
        match term.get_type() {
            TermType::Atom => self.word(ATOM, atoms::id(term)),
            TermType::Integer => match term.decode::<i64>() {
                Ok(int) => self.word(INT, int as u64),
                Err(_) => {
                    let etf = terms::etf(term);
                    let (negative, magnitude) = terms::big(&etf);
                    self.text(if negative { NEGATIVE } else { POSITIVE }, magnitude)
                }
            },
            TermType::Float => self.word(FLOAT, term.decode::<f64>().ok()?.to_bits()),
            TermType::Binary => match Binary::from_term(term) {
                Ok(text) => self.text(TEXT, text.as_slice()),
                Err(_) => self.refuse(BITSTRING),
            },
            TermType::List => self.list(term, depth.checked_sub(1)?),
            TermType::Tuple => self.tuple(term, depth.checked_sub(1)?),
            TermType::Map => self.map(term, depth.checked_sub(1)?),
            TermType::Pid => self.text(PID, &terms::etf(term)),
            TermType::Ref => self.text(REFERENCE, &terms::etf(term)),
            TermType::Port => self.text(PORT, &terms::etf(term)),
            // To write one may take long.
            TermType::Fun if self.limits.functions => self.text(FUNCTION, &terms::etf(term)),
            TermType::Fun => None,
            TermType::Unknown => self.refuse(BITSTRING),
        }
    }

    /// A list's length is put in afterwards, since to count a long one takes too long where only small
    /// requests are recorded.
    fn list(&mut self, list: Term<'_>, depth: usize) -> Option<()> {
        let begin = self.bytes.len();
        self.count(LIST, 0)?;
        let place = self.bytes.len() - COUNT;
        let (mut rest, mut len) = (list, 0_u32);
        while !ffi::is_nil(rest) {
            let Ok((head, tail)) = rest.list_get_cell() else {
                self.bytes.truncate(begin);
                return self.refuse(IMPROPER);
            };
            self.put(head, depth)?;
            len = len.checked_add(1)?;
            rest = tail;
        }
        self.bytes[place..][..COUNT].copy_from_slice(&len.to_ne_bytes());
        Some(())
    }

    fn tuple(&mut self, tuple: Term<'_>, depth: usize) -> Option<()> {
        let elements = Elements::of(tuple)?;
        self.count(TUPLE, elements.len())?;
        for element in elements {
            self.put(element, depth)?;
        }
        Some(())
    }

    fn map(&mut self, map: Term<'_>, depth: usize) -> Option<()> {
        let name = map.map_get(atoms::__struct__()).ok().filter(|name| name.is_atom());
        let tags = [(atoms::py_bytes(), BYTES), (atoms::py_buffer(), VIEW)];
        if let Some((_, tag)) = tags.into_iter().find(|(known, _)| name.is_some_and(|name| *known == name)) {
            return match map.map_get(atoms::data()).and_then(Binary::from_term) {
                Ok(bytes) => self.text(tag, bytes.as_slice()),
                Err(_) => self.refuse(NOT_BINARY),
            };
        }
        if let Some(object) = name.filter(|name| atoms::py_object() == *name).and_then(|_| terms::object(map))
        {
            self.objects.push(object);
            return self.count(OBJECT, self.objects.len() - 1);
        }
        self.count(if name.is_some() { STRUCT } else { MAP }, map.map_size().ok()?)?;
        let shown = name.and_then(atoms::shown);
        for (key, value) in Entries::of(map)? {
            self.put(key, depth)?;
            let is_shown = shown.is_some_and(|shown| shown == key);
            match is_shown.then(|| Binary::from_term(value).ok()).flatten() {
                Some(bytes) => self.text(VIEW, bytes.as_slice())?,
                None => self.put(value, depth)?,
            }
        }
        Some(())
    }

    fn refuse(&mut self, why: &str) -> Option<()> {
        self.count(REFUSED, REFUSALS.iter().position(|refusal| *refusal == why)?)
    }

    fn word(&mut self, tag: u8, word: u64) -> Option<()> {
        let mut entry = [tag; 9];
        entry[1..].copy_from_slice(&word.to_ne_bytes());
        self.bytes.extend_from_slice(&entry);
        self.fits()
    }

    fn count(&mut self, tag: u8, count: usize) -> Option<()> {
        self.bytes.push(tag);
        self.bytes.extend(u32::try_from(count).ok()?.to_ne_bytes());
        self.fits()
    }

    fn text(&mut self, tag: u8, text: &[u8]) -> Option<()> {
        // Before it is copied: it may be of any size.
        if text.len() > self.limits.text {
            return None;
        }
        self.count(tag, text.len())?;
        self.bytes.extend_from_slice(text);
        self.fits()
    }

    fn fits(&self) -> Option<()> {
        (self.bytes.len() <= self.limits.bytes).then_some(())
    }
}

/// Bytes that a length takes.
const COUNT: usize = size_of::<u32>();

/// Reads what was recorded.
pub struct Player<'a> {
    rest: &'a [u8],
    objects: &'a [ResourceArc<ObjectResource>],
}

impl<'a> Player<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    fn tag(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn word(&mut self) -> u64 {
        u64::from_ne_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn count(&mut self) -> usize {
        u32::from_ne_bytes(self.take(COUNT).try_into().expect("four bytes")) as usize
    }

    fn text(&mut self) -> &'a [u8] {
        let len = self.count();
        self.take(len)
    }
}

impl Read for Player<'_> {
    fn next(&mut self) -> Token<'_> {
        match self.tag() {
            ATOM => terms::atom(self.word()),
            INT => Token::Int(self.word() as i64),
            FLOAT => Token::Float(f64::from_bits(self.word())),
            TEXT => Token::Text(self.text()),
            BYTES => Token::Bytes(self.text()),
            VIEW => Token::View(self.text()),
            LIST => Token::List(self.count()),
            TUPLE => Token::Tuple(self.count()),
            MAP => Token::Map(self.count()),
            STRUCT => Token::Struct(self.count()),
            tag @ (NEGATIVE | POSITIVE) => {
                Token::Big { negative: tag == NEGATIVE, magnitude: self.text().to_vec() }
            }
            PID => Token::Opaque(Opaque::Pid, self.text().to_vec()),
            REFERENCE => Token::Opaque(Opaque::Reference, self.text().to_vec()),
            PORT => Token::Opaque(Opaque::Port, self.text().to_vec()),
            FUNCTION => Token::Opaque(Opaque::Function, self.text().to_vec()),
            OBJECT => self.objects[self.count()].token(),
            REFUSED => Token::Refused(REFUSALS[self.count()]),
            tag => unreachable!("nobody records {tag}"),
        }
    }

    fn name(&mut self) -> Token<'_> {
        if self.rest.first() == Some(&ATOM) {
            self.take(1);
            return Token::Atom(self.word());
        }
        self.next()
    }

    fn atom_text(&self, id: u64) -> String {
        atoms::text(id)
    }
}
