//! A term as the tokens of the type table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use py_core::convert::refused::{BITSTRING, IMPROPER, NOT_BINARY};
use py_core::convert::{Opaque, Read, SHARED_FROM, Token};

use super::scan::{Mark, atom_name};
use super::*;
use crate::segments::Lease;

/// Numbers for the names of atoms. The other side never frees an atom, so neither does this.
#[derive(Default)]
pub struct Atoms {
    names: Vec<Box<str>>,
    ids: HashMap<Box<str>, u64>,
}

impl Atoms {
    fn id(&mut self, name: &str) -> u64 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.names.len() as u64;
        self.names.push(name.into());
        self.ids.insert(name.into(), id);
        id
    }
}

/// Reads the elements of a tuple, one after another.
pub struct Reader<'a> {
    bytes: &'a [u8],
    marks: &'a [(usize, Mark)],
    at: usize,
    /// The first mark that was not come to.
    mark: usize,
    /// What is left of a list of bytes.
    string: Option<usize>,
    atoms: &'a Mutex<Atoms>,
    /// Where the bytes are, if that is a segment.
    lease: Option<&'a Arc<Lease>>,
}

impl<'a> Reader<'a> {
    /// Starts at the first element of a tuple. `marks` are those of its [`Document`].
    ///
    /// [`Document`]: super::Document
    pub fn new(
        bytes: &'a [u8],
        marks: &'a [(usize, Mark)],
        atoms: &'a Mutex<Atoms>,
        lease: Option<&'a Arc<Lease>>,
    ) -> Self {
        let at = if bytes[0] == SMALL_TUPLE { 2 } else { 5 };
        Reader { bytes, marks, at, mark: 0, string: None, atoms, lease }
    }

    /// The bytes of the next element as they are, which is an atom, a pid or the like.
    pub fn raw(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let len = match rest[0] {
            NEW_FUN => 1 + u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize,
            EXPORT => {
                let module = atom_len(&rest[1..]);
                1 + module + atom_len(&rest[1 + module..]) + 2
            }
            NEW_PID => 1 + atom_len(&rest[1..]) + 12,
            PID => 1 + atom_len(&rest[1..]) + 9,
            NEW_PORT => 1 + atom_len(&rest[1..]) + 8,
            PORT => 1 + atom_len(&rest[1..]) + 5,
            V4_PORT => 1 + atom_len(&rest[1..]) + 12,
            NEWER_REFERENCE | NEW_REFERENCE => {
                let words = usize::from(u16::from_be_bytes([rest[1], rest[2]]));
                let creation = if rest[0] == NEWER_REFERENCE { 4 } else { 1 };
                3 + atom_len(&rest[3..]) + creation + 4 * words
            }
            _ => atom_len(rest),
        };
        self.at += len;
        &rest[..len]
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        taken
    }

    fn u8(&mut self) -> usize {
        self.take(1)[0].into()
    }

    fn u16(&mut self) -> usize {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes")).into()
    }

    fn u32(&mut self) -> usize {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes")) as usize
    }

    /// What the scan found at this place.
    fn marked(&mut self, place: usize) -> Option<&'a Mark> {
        let marks = self.marks;
        while marks.get(self.mark).is_some_and(|(at, _)| *at < place) {
            self.mark += 1;
        }
        marks.get(self.mark).filter(|(at, _)| *at == place).map(|(_, mark)| mark)
    }

    fn atom(&mut self) -> u64 {
        let rest = &self.bytes[self.at..];
        let name = atom_name(rest).expect("an atom");
        self.at += atom_len(rest);
        if matches!(rest[0], ATOM | SMALL_ATOM) && !name.is_ascii() {
            let latin1: String = name.iter().map(|byte| char::from(*byte)).collect();
            return self.id(&latin1);
        }
        self.id(std::str::from_utf8(name).expect("the name of an atom is text"))
    }

    fn id(&self, name: &str) -> u64 {
        self.lock().id(name)
    }

    fn lock(&self) -> MutexGuard<'a, Atoms> {
        crate::lock(self.atoms)
    }

    fn opaque(&mut self, kind: Opaque) -> Token<'a> {
        let mut etf = vec![VERSION];
        etf.extend_from_slice(self.raw());
        Token::Opaque(kind, etf)
    }

    fn big(&mut self, len: usize) -> Token<'a> {
        let negative = self.u8() != 0;
        let magnitude = self.take(len);
        if len <= 8 {
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(magnitude);
            let value = i128::from(u64::from_le_bytes(bytes)) * if negative { -1 } else { 1 };
            if let Ok(small) = i64::try_from(value) {
                return Token::Int(small);
            }
        }
        Token::Big { negative, magnitude: magnitude.to_vec() }
    }

    fn list(&mut self, place: usize) -> Token<'a> {
        let len = self.u32();
        match self.marked(place) {
            Some(_) => Token::Refused(IMPROPER),
            None => Token::List(len),
        }
    }

    /// A view on what is in a segment takes no copy.
    fn view(&self, begin: usize, size: usize) -> Token<'a> {
        match self.lease {
            Some(lease) if size >= SHARED_FROM => {
                Token::Memory(Arc::new(lease.part(VERSION_LEN + begin, size)))
            }
            _ => Token::View(&self.bytes[begin..begin + size]),
        }
    }

    fn map(&mut self, place: usize) -> Token<'a> {
        let len = self.u32();
        match self.marked(place) {
            None => Token::Map(len),
            Some(Mark::Bytes { data: (begin, size), end }) => {
                self.at = *end;
                Token::Bytes(&self.bytes[*begin..begin + size])
            }
            Some(Mark::Buffer { data: (begin, size), end }) => {
                self.at = *end;
                self.view(*begin, *size)
            }
            Some(Mark::NotBytes) => Token::Refused(NOT_BINARY),
            Some(_) => Token::Struct(len),
        }
    }
}

/// In a segment, bytes stand behind a version that the reader does not see.
const VERSION_LEN: usize = 1;

/// The bytes that an atom takes.
fn atom_len(bytes: &[u8]) -> usize {
    let head = if matches!(bytes[0], ATOM | ATOM_UTF8) { 3 } else { 2 };
    head + atom_name(bytes).expect("an atom").len()
}

fn atom_token(bytes: &[u8]) -> Option<Token<'static>> {
    match bytes {
        b"nil" | b"undefined" => Some(Token::None),
        b"true" => Some(Token::Bool(true)),
        b"false" => Some(Token::Bool(false)),
        b"nan" => Some(Token::Float(f64::NAN)),
        b"infinity" => Some(Token::Float(f64::INFINITY)),
        b"neg_infinity" => Some(Token::Float(f64::NEG_INFINITY)),
        _ => None,
    }
}

impl Read for Reader<'_> {
    fn next(&mut self) -> Token<'_> {
        if let Some(left @ 1..) = self.string {
            self.string = Some(left - 1);
            return Token::Int(self.u8() as i64);
        }
        let place = self.at;
        self.at += 1;
        match self.bytes[place] {
            SMALL_INTEGER => Token::Int(self.u8() as i64),
            INTEGER => Token::Int(i32::from_be_bytes(self.take(4).try_into().expect("four bytes")).into()),
            NEW_FLOAT => Token::Float(f64::from_be_bytes(self.take(8).try_into().expect("eight bytes"))),
            ATOM | SMALL_ATOM | ATOM_UTF8 | SMALL_ATOM_UTF8 => {
                self.at = place;
                let rest = &self.bytes[place..];
                match atom_name(rest).and_then(atom_token) {
                    Some(token) => {
                        self.at += atom_len(rest);
                        token
                    }
                    None => Token::Atom(self.atom()),
                }
            }
            NIL => {
                self.string = Some(0);
                Token::List(0)
            }
            STRING => {
                let len = self.u16();
                self.string = Some(len);
                Token::List(len)
            }
            LIST => self.list(place),
            BINARY => {
                let len = self.u32();
                let begin = self.at;
                let text = self.take(len);
                match self.marked(place) {
                    Some(Mark::Shown) => self.view(begin, len),
                    _ => Token::Text(text),
                }
            }
            BIT_BINARY => {
                let len = self.u32();
                self.at += len + 1;
                Token::Refused(BITSTRING)
            }
            SMALL_BIG => {
                let len = self.u8();
                self.big(len)
            }
            LARGE_BIG => {
                let len = self.u32();
                self.big(len)
            }
            SMALL_TUPLE => Token::Tuple(self.u8()),
            LARGE_TUPLE => Token::Tuple(self.u32()),
            MAP => self.map(place),
            NEW_PID | PID => {
                self.at = place;
                self.opaque(Opaque::Pid)
            }
            NEWER_REFERENCE | NEW_REFERENCE => {
                self.at = place;
                self.opaque(Opaque::Reference)
            }
            NEW_PORT | PORT | V4_PORT => {
                self.at = place;
                self.opaque(Opaque::Port)
            }
            // There is nothing else: the term was looked through.
            _ => {
                self.at = place;
                self.opaque(Opaque::Function)
            }
        }
    }

    fn name(&mut self) -> Token<'_> {
        match self.bytes[self.at] {
            ATOM | SMALL_ATOM | ATOM_UTF8 | SMALL_ATOM_UTF8 => Token::Atom(self.atom()),
            _ => self.next(),
        }
    }

    /// A list in which every element is read ends in the empty list, but where it was bytes.
    fn end_list(&mut self) {
        if self.string.take().is_none() {
            self.at += 1;
        }
    }

    fn atom_text(&self, id: u64) -> String {
        self.lock().names[id as usize].to_string()
    }
}
