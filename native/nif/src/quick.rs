//! A call of plain values, taken out of its terms; see the module of the same name in the core.

use py_core::convert::{FEW, Plain};
use rustler::{Binary, Term, TermType};
use smallvec::SmallVec;

use crate::ffi::{self, Elements};

/// A longer text takes a scheduler a while.
const TEXT: usize = 1024;

pub struct Quick<'a> {
    /// The words of the function's names. Where they are no atoms, nothing is known by them.
    pub key: (u64, u64),
    pub arguments: SmallVec<[Plain<'a>; FEW]>,
}

impl<'a> Quick<'a> {
    /// None for what is more than that.
    pub fn of(mut parts: Elements<'a>) -> Option<Self> {
        let (target, name, arguments, keywords) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if !ffi::is_nil(keywords) {
            return None;
        }
        let mut quick = Quick { key: (ffi::word(target), ffi::word(name)), arguments: SmallVec::new() };
        let mut rest = arguments;
        while !ffi::is_nil(rest) {
            let (head, tail) = rest.list_get_cell().ok()?;
            if quick.arguments.len() == FEW {
                return None;
            }
            quick.arguments.push(plain(head)?);
            rest = tail;
        }
        Some(quick)
    }
}

fn plain(term: Term<'_>) -> Option<Plain<'_>> {
    match term.get_type() {
        TermType::Integer => term.decode().ok().map(Plain::Int),
        TermType::Float => term.decode().ok().map(Plain::Float),
        TermType::Binary => {
            let text = Binary::from_term(term).ok().filter(|text| text.len() <= TEXT)?;
            Some(Plain::Text(text.as_slice()))
        }
        _ => None,
    }
}
