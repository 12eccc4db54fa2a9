//! Small requests as plain bytes: recorded in the caller's process and played on another thread,
//! which costs less than an environment to copy terms into.

use std::cell::RefCell;

use py_core::convert::{Read, Token, Verb};
use rustler::{Binary, Term, TermType};

use crate::atoms;
use crate::ffi::{Elements, Entries};
use crate::terms;

/// Requests that would take more bytes are copied as terms.
const LIMIT: usize = 1024;

const ATOM: u8 = 0;
const INT: u8 = 1;
const FLOAT: u8 = 2;
const TEXT: u8 = 3;
const BYTES: u8 = 4;
const LIST: u8 = 5;
const TUPLE: u8 = 6;
const MAP: u8 = 7;
const STRUCT: u8 = 8;

pub struct Tape {
    verb: Verb,
    bytes: Box<[u8]>,
}

impl Tape {
    /// None where something in the request is large, or rare.
    pub fn record(verb: Verb, parts: Elements<'_>) -> Option<Self> {
        SCRATCH.with_borrow_mut(|bytes| {
            bytes.clear();
            let mut recorder = Recorder { bytes };
            for part in parts {
                recorder.put(part)?;
            }
            Some(Tape { verb, bytes: bytes[..].into() })
        })
    }

    pub fn verb(&self) -> Verb {
        self.verb
    }

    pub fn play(&self) -> Player<'_> {
        Player { rest: &self.bytes }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Recorder<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Recorder<'_> {
    fn put(&mut self, term: Term<'_>) -> Option<()> {
        match term.get_type() {
            TermType::Atom => self.word(ATOM, atoms::id(term)),
            TermType::Integer => self.word(INT, term.decode::<i64>().ok()? as u64),
            TermType::Float => self.word(FLOAT, term.decode::<f64>().ok()?.to_bits()),
            TermType::Binary => self.text(TEXT, Binary::from_term(term).ok()?.as_slice()),
            TermType::List => self.list(term),
            TermType::Tuple => {
                let elements = Elements::of(term)?;
                self.count(TUPLE, elements.len())?;
                for element in elements {
                    self.put(element)?;
                }
                Some(())
            }
            TermType::Map => self.map(term),
            _ => None,
        }
    }

    fn list(&mut self, mut rest: Term<'_>) -> Option<()> {
        self.count(LIST, 0)?;
        let place = self.bytes.len() - 2;
        let mut len: u16 = 0;
        while let Ok((head, tail)) = rest.list_get_cell() {
            self.put(head)?;
            len += 1;
            rest = tail;
        }
        self.bytes[place..][..2].copy_from_slice(&len.to_ne_bytes());
        rest.is_empty_list().then_some(())
    }

    fn map(&mut self, map: Term<'_>) -> Option<()> {
        let name = map.map_get(atoms::__struct__()).ok().filter(|name| name.is_atom());
        if name.is_some_and(|name| atoms::py_bytes() == name) {
            let data = map.map_get(atoms::data()).ok()?;
            return self.text(BYTES, Binary::from_term(data).ok()?.as_slice());
        }
        self.count(if name.is_some() { STRUCT } else { MAP }, map.map_size().ok()?)?;
        for (key, value) in Entries::of(map)? {
            self.put(key)?;
            self.put(value)?;
        }
        Some(())
    }

    fn word(&mut self, tag: u8, word: u64) -> Option<()> {
        self.bytes.push(tag);
        self.bytes.extend(word.to_ne_bytes());
        self.fits()
    }

    fn count(&mut self, tag: u8, count: usize) -> Option<()> {
        self.bytes.push(tag);
        self.bytes.extend(u16::try_from(count).ok()?.to_ne_bytes());
        self.fits()
    }

    fn text(&mut self, tag: u8, text: &[u8]) -> Option<()> {
        // Before it is copied: it may be of any size.
        if text.len() > LIMIT {
            return None;
        }
        self.count(tag, text.len())?;
        self.bytes.extend(text);
        self.fits()
    }

    fn fits(&self) -> Option<()> {
        (self.bytes.len() <= LIMIT).then_some(())
    }
}

/// Reads what was recorded.
pub struct Player<'a> {
    rest: &'a [u8],
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
        u16::from_ne_bytes(self.take(2).try_into().expect("two bytes")).into()
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
            LIST => Token::List(self.count()),
            TUPLE => Token::Tuple(self.count()),
            MAP => Token::Map(self.count()),
            STRUCT => Token::Struct(self.count()),
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
