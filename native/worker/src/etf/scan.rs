//! One pass over a term before it is read: that it is whole, and where in it stands what a reader has
//! to know before it comes to it.

use super::*;

/// A term that is cut short or holds what no term holds: nothing that an Erlang sends.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// What is found at the place of a map, list or binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A map with the key `__struct__`.
    Struct,
    /// A `%Py.Bytes{}` with this data, which ends at `end`.
    Bytes { data: (usize, usize), end: usize },
    /// The same of a `%Py.Buffer{}`.
    Buffer { data: (usize, usize), end: usize },
    /// A `%Py.Bytes{}` or `%Py.Buffer{}` without a binary.
    NotBytes,
    /// A binary that Python sees through a view: that of an array or a tensor.
    Shown,
    /// A list that ends in something else than the empty list.
    Improper,
}

/// A whole term.
#[derive(Debug)]
pub struct Document<'a> {
    pub bytes: &'a [u8],
    /// By where they stand.
    pub marks: Vec<(usize, Mark)>,
}

impl<'a> Document<'a> {
    /// `bytes` are one term, without a version in front.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut scan = Scan { bytes, at: 0, open: Vec::new(), marks: Vec::new() };
        scan.run()?;
        let mut marks = scan.marks;
        marks.sort_by_key(|(at, _)| *at);
        Ok(Document { bytes, marks })
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open>,
    marks: Vec<(usize, Mark)>,
}

/// A container whose elements are being looked at.
struct Open {
    left: usize,
    kind: Kind,
}

enum Kind {
    Sequence,
    List { begin: usize },
    Map(Map),
}

#[derive(Default)]
struct Map {
    begin: usize,
    /// What the last key says of the value after it.
    key: Key,
    is_struct: bool,
    is_bytes: bool,
    is_buffer: bool,
    is_array: bool,
    data: Option<(usize, usize)>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Key {
    #[default]
    Other,
    Struct,
    Data,
}

impl<'a> Scan<'a> {
    fn run(&mut self) -> Result<(), Malformed> {
        self.term()?;
        while let Some(open) = self.open.last_mut() {
            if open.left > 0 {
                open.left -= 1;
                self.note()?;
                self.term()?;
            } else {
                self.close();
            }
        }
        if self.at == self.bytes.len() { Ok(()) } else { Err(Malformed) }
    }

    /// Looks at what comes next in a map: keys are at even distances from its end.
    fn note(&mut self) -> Result<(), Malformed> {
        let Some(Open { left, kind: Kind::Map(map) }) = self.open.last_mut() else { return Ok(()) };
        let here = &self.bytes[self.at.min(self.bytes.len())..];
        if *left % 2 == 1 {
            map.key = match atom_name(here) {
                Some(b"__struct__") => Key::Struct,
                Some(b"data" | b"state") => Key::Data,
                _ => Key::Other,
            };
        } else if map.key == Key::Struct && atom_name(here).is_some() {
            map.is_struct = true;
            map.is_bytes = atom_name(here) == Some(b"Elixir.Py.Bytes");
            map.is_buffer = atom_name(here) == Some(b"Elixir.Py.Buffer");
            map.is_array = matches!(atom_name(here), Some(b"Elixir.Py.Array" | b"Elixir.Nx.BinaryBackend"));
        } else if map.key == Key::Data && here.first() == Some(&BINARY) {
            let len = u32_at(here, 1)? as usize;
            map.data = Some((self.at + BINARY_HEAD, len));
        }
        Ok(())
    }

    /// Goes over one value, or over the head of a container.
    fn term(&mut self) -> Result<(), Malformed> {
        let begin = self.at;
        let tag = *self.bytes.get(begin).ok_or(Malformed)?;
        self.at += 1;
        match tag {
            SMALL_INTEGER => self.skip(1),
            INTEGER => self.skip(4),
            NEW_FLOAT => self.skip(8),
            ATOM | ATOM_UTF8 | STRING => {
                let len = self.u16()?;
                self.skip(len)
            }
            SMALL_ATOM | SMALL_ATOM_UTF8 => {
                let len = self.u8()?;
                self.skip(len)
            }
            BINARY => {
                let len = self.u32()?;
                self.skip(len)
            }
            BIT_BINARY => {
                let len = self.u32()?;
                self.skip(len + 1)
            }
            SMALL_BIG => {
                let len = self.u8()?;
                self.skip(len + 1)
            }
            LARGE_BIG => {
                let len = self.u32()?;
                self.skip(len + 1)
            }
            NIL => Ok(()),
            SMALL_TUPLE => {
                let len = self.u8()?;
                self.enter(len, Kind::Sequence)
            }
            LARGE_TUPLE => {
                let len = self.u32()?;
                self.enter(len, Kind::Sequence)
            }
            LIST => {
                let len = self.u32()?;
                self.enter(len, Kind::List { begin })
            }
            MAP => {
                let len = self.u32()?;
                self.enter(2 * len, Kind::Map(Map { begin, ..Map::default() }))
            }
            NEW_FUN => {
                let len = self.u32()?;
                self.skip(len.checked_sub(4).ok_or(Malformed)?)
            }
            EXPORT => self.enter(3, Kind::Sequence),
            // A node's name, then numbers.
            NEW_PID => self.named(12),
            PID => self.named(9),
            NEW_PORT => self.named(8),
            PORT => self.named(5),
            V4_PORT => self.named(12),
            NEWER_REFERENCE | NEW_REFERENCE => {
                let words = self.u16()?;
                self.named(4 * words + if tag == NEWER_REFERENCE { 4 } else { 1 })
            }
            _ => Err(Malformed),
        }
    }

    fn named(&mut self, after: usize) -> Result<(), Malformed> {
        let name = atom_name(&self.bytes[self.at..]).ok_or(Malformed)?.len();
        let head = if matches!(self.bytes[self.at], ATOM | ATOM_UTF8) { 3 } else { 2 };
        self.skip(head + name + after)
    }

    fn enter(&mut self, left: usize, kind: Kind) -> Result<(), Malformed> {
        // Each element takes a byte at least.
        if left > self.bytes.len() - self.at {
            return Err(Malformed);
        }
        self.open.push(Open { left, kind });
        Ok(())
    }

    fn close(&mut self) {
        let Some(open) = self.open.pop() else { return };
        match open.kind {
            Kind::Sequence => {}
            Kind::List { .. } if self.bytes.get(self.at) == Some(&NIL) => self.at += 1,
            Kind::List { begin } => {
                self.marks.push((begin, Mark::Improper));
                self.open.push(Open { left: 1, kind: Kind::Sequence });
            }
            Kind::Map(map) => {
                let end = self.at;
                let mark = match map.data {
                    Some(data) if map.is_bytes => Mark::Bytes { data, end },
                    Some(data) if map.is_buffer => Mark::Buffer { data, end },
                    None if map.is_bytes || map.is_buffer => Mark::NotBytes,
                    _ => Mark::Struct,
                };
                if map.is_struct {
                    self.marks.push((map.begin, mark));
                }
                if let Some((begin, _)) = map.data.filter(|_| map.is_array) {
                    self.marks.push((begin - BINARY_HEAD, Mark::Shown));
                }
            }
        }
    }

    fn skip(&mut self, len: usize) -> Result<(), Malformed> {
        if len > self.bytes.len() - self.at {
            return Err(Malformed);
        }
        self.at += len;
        Ok(())
    }

    fn u8(&mut self) -> Result<usize, Malformed> {
        let value = *self.bytes.get(self.at).ok_or(Malformed)?;
        self.at += 1;
        Ok(value.into())
    }

    fn u16(&mut self) -> Result<usize, Malformed> {
        let bytes = self.bytes.get(self.at..self.at + 2).ok_or(Malformed)?;
        self.at += 2;
        Ok(u16::from_be_bytes(bytes.try_into().map_err(|_| Malformed)?).into())
    }

    fn u32(&mut self) -> Result<usize, Malformed> {
        let value = u32_at(self.bytes, self.at)?;
        self.at += 4;
        Ok(value as usize)
    }
}

/// The tag of a binary, and its length.
const BINARY_HEAD: usize = 5;

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let bytes = bytes.get(at..at + 4).ok_or(Malformed)?;
    Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| Malformed)?))
}

/// The text of the atom that these bytes begin with, if they do.
pub fn atom_name(bytes: &[u8]) -> Option<&[u8]> {
    match *bytes.first()? {
        SMALL_ATOM | SMALL_ATOM_UTF8 => bytes.get(2..2 + usize::from(*bytes.get(1)?)),
        ATOM | ATOM_UTF8 => {
            let len = u16::from_be_bytes(bytes.get(1..3)?.try_into().ok()?);
            bytes.get(3..3 + usize::from(len))
        }
        _ => None,
    }
}
