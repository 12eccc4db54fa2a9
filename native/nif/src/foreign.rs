//! Structs that the type table does not know: what stands for them is `Py.Encoder`'s to say, in Elixir,
//! before anything of theirs is taken out of the process.

use std::sync::OnceLock;

use rustler::{Atom, Term, TermType};

use crate::atoms;
use crate::ffi::{Elements, Entries};

/// The names of all others.
static KNOWN: OnceLock<Vec<Atom>> = OnceLock::new();

/// To be called before there are requests.
pub fn learn(known: Vec<Atom>) {
    KNOWN.get_or_init(|| known);
}

/// Whether a struct of this name is one.
pub fn is_named(name: Term<'_>) -> bool {
    !KNOWN.get().is_some_and(|known| known.iter().any(|known| *known == name))
}

/// Whether there is one in a term. Terms nest deeper than a scheduler's stack.
pub fn is_in(term: Term<'_>) -> bool {
    let mut left = vec![term];
    while let Some(term) = left.pop() {
        match term.get_type() {
            TermType::List => {
                let mut rest = term;
                while let Ok((head, tail)) = rest.list_get_cell() {
                    if is_container(head) {
                        left.push(head);
                    }
                    rest = tail;
                }
            }
            TermType::Tuple => left.extend(Elements::of(term).into_iter().flatten()),
            TermType::Map => {
                let name = term.map_get(atoms::__struct__()).ok().filter(|name| name.is_atom());
                if name.is_some_and(is_named) {
                    return true;
                }
                if name.is_some_and(|name| atoms::py_bytes() == name || atoms::py_buffer() == name) {
                    continue;
                }
                left.extend(Entries::of(term).into_iter().flatten().flat_map(<[Term<'_>; 2]>::from));
            }
            _ => {}
        }
    }
    false
}

fn is_container(term: Term<'_>) -> bool {
    matches!(term.get_type(), TermType::List | TermType::Tuple | TermType::Map)
}
