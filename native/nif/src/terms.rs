//! Erlang terms as the tokens of the type table.

use std::sync::Arc;

use py_core::convert::refused::{BITSTRING, IMPROPER, NOT_BINARY};
use py_core::convert::{Opaque, Read, SHARED_FROM, Token, View, Write};
use py_core::{Frozen, Interpreter};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustler::{Atom, Binary, ResourceArc, Term, TermType};

use crate::atoms;
use crate::ffi::{self, Builder, Built, Elements, Entries, Lent};
use crate::object::ObjectResource;
use crate::shared::SharedBytes;

/// Reads terms, depth first.
pub struct TermReader<'a> {
    parts: Elements<'a>,
    open: Vec<Open<'a>>,
    /// The term that comes is shown, if it is a binary.
    is_shown: bool,
}

/// A container of which some elements were read.
enum Open<'a> {
    List(Term<'a>),
    Tuple(Elements<'a>),
    Map(Fields<'a>),
}

struct Fields<'a> {
    rest: Entries<'a>,
    value: Option<Term<'a>>,
    /// The key of the value that is shown.
    shown: Option<Atom>,
    is_shown: bool,
}

impl<'a> Fields<'a> {
    /// A key, then its value.
    fn next(&mut self) -> Option<Term<'a>> {
        if let Some(value) = self.value.take() {
            return Some(value);
        }
        let (key, value) = self.rest.next()?;
        self.value = Some(value);
        self.is_shown = self.shown.is_some_and(|shown| shown == key);
        Some(key)
    }

    /// Whether the term that comes is the value that is shown.
    fn shows(&self) -> bool {
        self.is_shown && self.value.is_some()
    }
}

impl<'a> TermReader<'a> {
    /// Reads the elements of a tuple, one after another.
    pub fn new(parts: Elements<'a>) -> Self {
        TermReader { parts, open: Vec::new(), is_shown: false }
    }

    fn next_term(&mut self) -> Term<'a> {
        self.is_shown = false;
        while let Some(open) = self.open.last_mut() {
            let next = match open {
                Open::List(rest) => rest.list_get_cell().ok().map(|(head, tail)| {
                    *rest = tail;
                    head
                }),
                Open::Tuple(rest) => rest.next(),
                Open::Map(fields) => {
                    self.is_shown = fields.shows();
                    fields.next()
                }
            };
            if let Some(term) = next {
                return term;
            }
            self.open.pop();
        }
        self.parts.next().expect("the type table reads no more values than there are")
    }

    fn token(&mut self, term: Term<'a>) -> Token<'a> {
        match term.get_type() {
            TermType::Atom => atom(atoms::id(term)),
            TermType::Integer => integer(term),
            TermType::Float => Token::Float(term.decode().expect("its type is float")),
            TermType::Binary if self.is_shown && term.is_binary() => view(term),
            TermType::Binary => Binary::from_term(term)
                .map_or(Token::Refused(BITSTRING), |binary| Token::Text(binary.as_slice())),
            TermType::List => self.list(term),
            TermType::Tuple => self.tuple(term),
            TermType::Map => self.map(term),
            TermType::Pid => Token::Opaque(Opaque::Pid, etf(term)),
            TermType::Ref => Token::Opaque(Opaque::Reference, etf(term)),
            TermType::Port => Token::Opaque(Opaque::Port, etf(term)),
            TermType::Fun => Token::Opaque(Opaque::Function, etf(term)),
            TermType::Unknown => Token::Refused(BITSTRING),
        }
    }

    fn list(&mut self, term: Term<'a>) -> Token<'a> {
        match term.list_length() {
            Ok(0) => Token::List(0),
            Ok(len) => {
                self.open.push(Open::List(term));
                Token::List(len)
            }
            Err(_) => Token::Refused(IMPROPER),
        }
    }

    fn tuple(&mut self, term: Term<'a>) -> Token<'a> {
        let elements = elements(term);
        let len = elements.len();
        self.open.push(Open::Tuple(elements));
        Token::Tuple(len)
    }

    fn map(&mut self, term: Term<'a>) -> Token<'a> {
        let len = term.map_size().expect("its type is map");
        let name = term.map_get(atoms::__struct__()).ok().filter(|name| name.is_atom());
        if name.is_some_and(|name| atoms::py_bytes() == name) {
            return data(term).map_or(Token::Refused(NOT_BINARY), Token::Bytes);
        }
        if name.is_some_and(|name| atoms::py_buffer() == name) {
            return term.map_get(atoms::data()).map_or(Token::Refused(NOT_BINARY), view);
        }
        if let Some(object) = name.filter(|name| atoms::py_object() == *name).and_then(|_| object(term)) {
            return object.token();
        }
        let shown = name.and_then(atoms::shown);
        self.open.push(Open::Map(Fields { rest: entries(term), value: None, shown, is_shown: false }));
        if name.is_some() { Token::Struct(len) } else { Token::Map(len) }
    }
}

fn elements(tuple: Term<'_>) -> Elements<'_> {
    Elements::of(tuple).expect("its type is tuple")
}

fn entries(map: Term<'_>) -> Entries<'_> {
    Entries::of(map).expect("its type is map")
}

/// The binary of a `%Py.Bytes{}`.
fn data(term: Term<'_>) -> Option<&[u8]> {
    let binary = term.map_get(atoms::data()).and_then(Binary::from_term).ok()?;
    Some(binary.as_slice())
}

/// To copy fewer bytes costs less than to lend them.
const LENT_FROM: usize = 1024;

/// A binary that Python sees through a `memoryview`.
fn view(term: Term<'_>) -> Token<'_> {
    match Binary::from_term(term) {
        Ok(binary) if binary.len() < LENT_FROM => Token::View(binary.as_slice()),
        Ok(_) => Lent::new(term).map_or(Token::Refused(NOT_BINARY), |lent| Token::Memory(Arc::new(lent))),
        Err(_) => Token::Refused(NOT_BINARY),
    }
}

/// What the reference of a `%Py.Object{}` holds, if it holds an object of this node.
pub fn object(term: Term<'_>) -> Option<ResourceArc<ObjectResource>> {
    term.map_get(atoms::handle()).and_then(|handle| handle.decode()).ok()
}

impl Read for TermReader<'_> {
    fn next(&mut self) -> Token<'_> {
        let term = self.next_term();
        self.token(term)
    }

    fn name(&mut self) -> Token<'_> {
        let term = self.next_term();
        if term.is_atom() { Token::Atom(atoms::id(term)) } else { self.token(term) }
    }

    fn atom_text(&self, id: u64) -> String {
        atoms::text(id)
    }
}

/// Some atoms are values of their own in Python.
pub fn atom(id: u64) -> Token<'static> {
    let is = |atom| ffi::atom_word(atom) == id;
    if is(atoms::nil()) || is(atoms::undefined()) {
        Token::None
    } else if is(atoms::r#true()) {
        Token::Bool(true)
    } else if is(atoms::r#false()) {
        Token::Bool(false)
    } else if is(atoms::nan()) {
        Token::Float(f64::NAN)
    } else if is(atoms::infinity()) {
        Token::Float(f64::INFINITY)
    } else if is(atoms::neg_infinity()) {
        Token::Float(f64::NEG_INFINITY)
    } else {
        Token::Atom(id)
    }
}

fn integer(term: Term<'_>) -> Token<'_> {
    match term.decode() {
        Ok(small) => Token::Int(small),
        Err(_) => {
            let etf = etf(term);
            let (negative, magnitude) = big(&etf);
            Token::Big { negative, magnitude: magnitude.to_vec() }
        }
    }
}

/// Sign and magnitude of a big integer in external term format: 131, its tag, its length in 1 or 4
/// bytes, its sign, its magnitude.
pub fn big(etf: &[u8]) -> (bool, &[u8]) {
    let header = if etf[1] == SMALL_BIG_EXT { 3 } else { 6 };
    (etf[header] != 0, &etf[header + 1..])
}

const SMALL_BIG_EXT: u8 = 110;
const LARGE_BIG_EXT: u8 = 111;
const ATOM_UTF8_EXT: u8 = 118;

/// Tags of pids, references and ports.
const OPAQUE: [u8; 7] = [88, 89, 90, 102, 103, 114, 120];

pub fn etf(term: Term<'_>) -> Vec<u8> {
    term.to_binary().as_slice().to_vec()
}

/// More values than this, and copying or counting them may take a scheduler too long.
const LARGE: usize = 4_096;

/// Containers nested deeper are large: this looks at terms recursively, on a scheduler's stack.
const DEEP: usize = 100;

/// Whether a term has more than a few thousand parts. Looks at no more than that many.
pub fn is_large(term: Term<'_>) -> bool {
    parts_left(term, LARGE, DEEP).is_none()
}

/// How many of `left` parts are left when those of the term are counted.
fn parts_left(term: Term<'_>, left: usize, depth: usize) -> Option<usize> {
    let mut left = left.checked_sub(1)?;
    match term.get_type() {
        TermType::List => {
            let depth = depth.checked_sub(1)?;
            let mut rest = term;
            while let Ok((head, tail)) = rest.list_get_cell() {
                left = parts_left(head, left, depth)?;
                rest = tail;
            }
            Some(left)
        }
        TermType::Tuple => {
            let depth = depth.checked_sub(1)?;
            elements(term).try_fold(left, |left, element| parts_left(element, left, depth))
        }
        TermType::Map => {
            let depth = depth.checked_sub(1)?;
            entries(term)
                .try_fold(left, |left, (key, value)| parts_left(value, parts_left(key, left, depth)?, depth))
        }
        // What it refers to cannot be counted.
        TermType::Fun => None,
        _ => Some(left),
    }
}

/// Writes a value of Python's into a message.
pub struct TermWriter<'a> {
    pub builder: &'a mut Builder,
    pub interpreter: &'static Interpreter,
    /// Whose objects are written.
    pub pool: Option<Atom>,
}

impl TermWriter<'_> {
    /// A binary on memory of Python's.
    fn share(&mut self, frozen: Frozen) {
        let shared = ResourceArc::new(SharedBytes::new(frozen, self.interpreter));
        self.builder.push_shared(&shared);
    }
}

impl Write for TermWriter<'_> {
    type Written = Built;

    fn last(&self) -> Option<Built> {
        self.builder.last()
    }

    fn again(&mut self, value: Built) {
        self.builder.push_again(value);
    }

    fn none(&mut self) {
        self.builder.push_atom(atoms::nil());
    }

    fn bool(&mut self, value: bool) {
        self.builder.push_atom(if value { atoms::r#true() } else { atoms::r#false() });
    }

    fn int(&mut self, value: i64) {
        self.builder.push(value);
    }

    fn big(&mut self, negative: bool, magnitude: &[u8]) -> bool {
        let mut etf = vec![131];
        match u8::try_from(magnitude.len()) {
            Ok(len) => etf.extend([SMALL_BIG_EXT, len]),
            Err(_) => {
                let Ok(len) = u32::try_from(magnitude.len()) else {
                    return false;
                };
                etf.push(LARGE_BIG_EXT);
                etf.extend(len.to_be_bytes());
            }
        }
        etf.push(u8::from(negative));
        etf.extend(magnitude);
        self.builder.push_etf(&etf)
    }

    fn float(&mut self, value: f64) {
        self.builder.push_float(value);
    }

    fn atom(&mut self, name: &str) -> bool {
        if let Some(atom) = self.builder.existing_atom(name) {
            self.builder.push_atom(atom);
            return true;
        }
        // Names beyond Latin-1 go the way that every OTP knows.
        let Ok(len) = u16::try_from(name.len()) else {
            return false;
        };
        self.builder.push_etf(&[&[131, ATOM_UTF8_EXT], &len.to_be_bytes()[..], name.as_bytes()].concat())
    }

    fn binary(&mut self, bytes: &[u8]) {
        self.builder.push_binary(bytes);
    }

    fn shared_binary(&mut self, bytes: Py<PyBytes>, _len: usize) {
        self.share(Python::attach(|py| Frozen::bytes(bytes.into_bound(py))));
    }

    fn view(&mut self, view: View) {
        let is_small = view.as_slice().len() < SHARED_FROM;
        match if is_small { None } else { self.interpreter.frozen(&view) } {
            None => self.binary(view.as_slice()),
            Some(frozen) => match frozen.lender::<Lent>() {
                Some(lent) => self.builder.push_lent(lent, frozen.as_slice()),
                None => self.share(frozen),
            },
        }
    }

    fn opaque(&mut self, etf: &[u8]) -> bool {
        etf.get(1).is_some_and(|tag| OPAQUE.contains(tag)) && self.builder.push_etf(etf)
    }

    fn function(&mut self, etf: &[u8]) -> bool {
        self.builder.push_etf(etf)
    }

    fn handle(&mut self, object: &Bound<'_, PyAny>, _number: Option<u64>) {
        let kept = ObjectResource::new(object, self.interpreter, self.pool);
        self.builder.push(ResourceArc::new(kept));
    }

    fn list(&mut self, len: usize) {
        self.builder.reserve(len);
    }

    fn end_list(&mut self, len: usize) {
        self.builder.end_list(len);
    }

    fn tuple(&mut self, _len: usize) {}

    fn end_tuple(&mut self, len: usize) {
        self.builder.end_tuple(len);
    }

    fn map(&mut self, _len: usize) {}

    fn end_map(&mut self, len: usize) -> bool {
        self.builder.end_map(len)
    }
}
