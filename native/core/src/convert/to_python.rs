use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyMemoryView, PyString, PyTuple};

use super::{MAX_DEPTH, Read, Refusal, Token};
use crate::ffi::{self, CollectorPause, Sequence};
use crate::interpreter::Interpreter;
use crate::request::Arguments;
use crate::routes::Key;

type Converted<'py> = Result<Bound<'py, PyAny>, Refusal>;

/// Converts what a reader gives, one value after another.
pub struct Decoder<'py, 'a, R> {
    py: Python<'py>,
    interpreter: &'a Interpreter,
    reader: &'a mut R,
    keys: Keys<'py>,
    pause: Option<CollectorPause>,
}

/// A name as it was given.
pub enum Name<'py> {
    Atom(u64),
    Text(Bound<'py, PyString>),
}

/// Of what a function or attribute is.
pub enum Target<'py> {
    Named(Name<'py>),
    Object(Bound<'py, PyAny>),
}

impl Name<'_> {
    pub fn atom(&self) -> Option<u64> {
        match self {
            Name::Atom(id) => Some(*id),
            Name::Text(_) => None,
        }
    }
}

/// The strings that were keys of maps lately: rows of a table have the same ones.
#[derive(Default)]
struct Keys<'py>(Vec<Option<Bound<'py, PyString>>>);

impl<'py> Keys<'py> {
    const PLACES: usize = 64;
    const LONGEST: usize = 32;

    fn get(&mut self, py: Python<'py>, bytes: &[u8]) -> Converted<'py> {
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return text(py, bytes) };
        if bytes.len() > Self::LONGEST {
            return text(py, bytes);
        }
        if self.0.is_empty() {
            self.0.resize(Self::PLACES, None);
        }
        let place = (bytes.len() * 7 + usize::from(*first) * 3 + usize::from(*last)) % Self::PLACES;
        if let Some(known) = &self.0[place]
            && known.to_str().is_ok_and(|known| known.as_bytes() == bytes)
        {
            return Ok(known.clone().into_any());
        }
        let key = text(py, bytes)?;
        self.0[place] = key.cast::<PyString>().ok().cloned();
        Ok(key)
    }
}

impl<'py, 'a, R: Read> Decoder<'py, 'a, R> {
    pub fn new(py: Python<'py>, interpreter: &'a Interpreter, reader: &'a mut R) -> Self {
        Decoder { py, interpreter, reader, keys: Keys::default(), pause: None }
    }

    pub fn reader(&mut self) -> &mut R {
        self.reader
    }

    pub fn next(&mut self) -> Converted<'py> {
        self.value(0)
    }

    /// Converts a list into positional arguments.
    pub fn arguments(&mut self, values: &mut Arguments<'py>) -> Result<(), Refusal> {
        let Token::List(len) = self.reader.next() else {
            return Err(Refusal::new("expected a proper list of arguments"));
        };
        for index in 0..len {
            values.push(self.value(1).map_err(|refusal| refusal.within(|| format!("[{index}]")))?);
        }
        self.reader.end_list();
        Ok(())
    }

    /// Converts a map, or a list of pairs, into keyword arguments: their names, and their values in
    /// the same order.
    pub fn keywords(&mut self, values: &mut Arguments<'py>) -> Result<Option<Bound<'py, PyTuple>>, Refusal> {
        let (len, pairs) = match self.reader.next() {
            Token::List(len) => (len, true),
            Token::Map(len) => (len, false),
            _ => return Err(Refusal::new("expected a keyword list or a map")),
        };
        if len == 0 {
            if pairs {
                self.reader.end_list();
            }
            return Ok(None);
        }
        let mut names = Sequence::tuple(self.py, len).map_err(from_error)?;
        let seen = PyDict::new(self.py);
        for _ in 0..len {
            if pairs && !matches!(self.reader.next(), Token::Tuple(2)) {
                return Err(Refusal::new("expected a list of {name, value} pairs"));
            }
            let (name, value) = self.named_value()?;
            seen.set_item(&name, ()).map_err(from_error)?;
            values.push(value);
            names.push(name);
        }
        if pairs {
            self.reader.end_list();
        }
        if seen.len() < len {
            return Err(Refusal::new("a keyword is given twice"));
        }
        names.finish().cast_into::<PyTuple>().map(Some).map_err(|error| Refusal::new(error.to_string()))
    }

    /// Converts a map into the variables of a piece of code.
    pub fn variables(&mut self) -> Result<Bound<'py, PyDict>, Refusal> {
        let Token::Map(len) = self.reader.next() else {
            return Err(Refusal::new("expected a map of variables"));
        };
        let variables = PyDict::new(self.py);
        for _ in 0..len {
            let (name, value) = self.named_value()?;
            variables.set_item(name, value).map_err(from_error)?;
        }
        if variables.len() < len {
            return Err(Refusal::new("two names are the same once they are strings"));
        }
        Ok(variables)
    }

    fn named_value(&mut self) -> Result<(Bound<'py, PyString>, Bound<'py, PyAny>), Refusal> {
        let name = self.name()?;
        let value = self.value(1).map_err(|refusal| refusal.within(|| format!("[{}]", key_text(&name))))?;
        Ok((name, value))
    }

    /// Converts an atom or text into a plain string.
    pub fn name(&mut self) -> Result<Bound<'py, PyString>, Refusal> {
        let name = self.raw_name()?;
        self.spell(name)
    }

    pub fn raw_name(&mut self) -> Result<Name<'py>, Refusal> {
        match self.reader.name() {
            Token::Text(bytes) => text(self.py, bytes).and_then(into_text).map(Name::Text),
            Token::Atom(id) => Ok(Name::Atom(id)),
            _ => Err(Refusal::new("expected an atom or a string")),
        }
    }

    /// An object by its reference, or a name.
    pub fn target(&mut self) -> Result<Target<'py>, Refusal> {
        let object = match self.reader.name() {
            Token::Text(bytes) => {
                return text(self.py, bytes).and_then(into_text).map(|text| Target::Named(Name::Text(text)));
            }
            Token::Atom(id) => return Ok(Target::Named(Name::Atom(id))),
            Token::Made(made) => made.map(|made| made.into_bound(self.py)).map_err(from_error),
            Token::Struct(len) => self.structure(len, 0),
            Token::Tuple(3) => self.numbered(),
            _ => Err(Refusal::new("expected an atom, a string or a %Py.Object{}")),
        };
        object.map(Target::Object)
    }

    /// An object of this worker process: the numbers of both, and the name of its type.
    fn numbered(&mut self) -> Converted<'py> {
        let mut number = || match self.reader.next() {
            Token::Int(number) => number,
            _ => 0,
        };
        let (worker, number) = (number(), number());
        self.reader.next();
        let object = self.interpreter.object_numbered(self.py, worker, number);
        object.map_err(|error| refusal(self.py, self.interpreter, error))
    }

    pub fn spell(&self, name: Name<'py>) -> Result<Bound<'py, PyString>, Refusal> {
        match name {
            Name::Text(text) => Ok(text),
            Name::Atom(id) => {
                self.interpreter.name(self.py, id, || self.reader.atom_text(id)).map_err(from_error)
            }
        }
    }

    /// What two atoms name, where they did before.
    pub fn known(&self, key: Key) -> Option<Bound<'py, PyAny>> {
        self.interpreter.routes.find(self.py, key)
    }

    fn value(&mut self, depth: usize) -> Converted<'py> {
        self.convert(depth, false)
    }

    fn key(&mut self, depth: usize) -> Converted<'py> {
        self.convert(depth, true)
    }

    fn convert(&mut self, depth: usize, is_key: bool) -> Converted<'py> {
        if depth > MAX_DEPTH {
            return Err(Refusal::new(format!("it is nested over {MAX_DEPTH} deep")));
        }
        let py = self.py;
        match self.reader.next() {
            Token::None => Ok(py.None().into_bound(py)),
            Token::Bool(value) => Ok(PyBool::new(py, value).to_owned().into_any()),
            Token::Int(value) => Ok(PyInt::new(py, value).into_any()),
            Token::Big { negative, magnitude } => {
                self.interpreter.big(py, negative, &magnitude).map_err(from_error)
            }
            Token::Float(value) => Ok(PyFloat::new(py, value).into_any()),
            Token::Atom(id) => self.atom(id),
            Token::Text(bytes) if is_key => self.keys.get(py, bytes),
            Token::Text(bytes) => text(py, bytes),
            Token::Bytes(bytes) => Ok(PyBytes::new(py, bytes).into_any()),
            Token::View(bytes) => {
                PyMemoryView::from(&PyBytes::new(py, bytes)).map(Bound::into_any).map_err(from_error)
            }
            Token::Memory(memory) => self.interpreter.memory.show(py, memory).map_err(from_error),
            Token::Made(made) => made.map(|made| made.into_bound(py)).map_err(from_error),
            Token::List(len) => self.sequence(Sequence::list(py, len), depth, '[', ']'),
            Token::Tuple(len) => self.sequence(Sequence::tuple(py, len), depth, '{', '}'),
            Token::Map(len) => self.map(len, depth),
            Token::Struct(len) => self.structure(len, depth),
            Token::Opaque(opaque, etf) => self.interpreter.opaque(py, opaque, &etf).map_err(from_error),
            Token::Refused(why) => Err(Refusal::new(why)),
        }
    }

    fn atom(&mut self, id: u64) -> Converted<'py> {
        let reader = &*self.reader;
        self.interpreter.atom(self.py, id, || reader.atom_text(id)).map_err(from_error)
    }

    /// What is made here lives: to look for garbage in it each few hundred containers is in vain.
    fn pause_collector(&mut self) {
        self.pause.get_or_insert_with(|| CollectorPause::new(self.py));
    }

    fn sequence(
        &mut self,
        items: PyResult<Sequence<'py>>,
        depth: usize,
        open: char,
        close: char,
    ) -> Converted<'py> {
        let mut items = items.map_err(from_error)?;
        self.pause_collector();
        for index in 0..items.capacity() {
            let item = self
                .value(depth + 1)
                .map_err(|refusal| refusal.within(|| format!("{open}{index}{close}")))?;
            items.push(item);
        }
        if open == '[' {
            self.reader.end_list();
        }
        Ok(items.finish())
    }

    fn map(&mut self, len: usize, depth: usize) -> Converted<'py> {
        let dict = PyDict::new(self.py);
        self.pause_collector();
        for index in 0..len {
            let key = self.key(depth + 1).map_err(|refusal| refusal.within(|| format!("[key {index}]")))?;
            let value = self
                .value(depth + 1)
                .map_err(|refusal| refusal.within(|| format!("[{}]", key_text(&key))))?;
            dict.set_item(&key, value)
                .map_err(|error| from_error(error).within(|| format!("[key {}]", key_text(&key))))?;
            if dict.len() <= index {
                let key = key_text(&key);
                return Err(Refusal::new(format!(
                    "two of its keys are the same in Python: {key} and one that equals it"
                )));
            }
        }
        Ok(dict.into_any())
    }

    fn structure(&mut self, len: usize, depth: usize) -> Converted<'py> {
        let py = self.py;
        let fields = PyDict::new(py);
        self.pause_collector();
        for _ in 0..len {
            let name = self.name()?;
            let value = self.value(depth + 1).map_err(|refusal| refusal.within(|| format!(".{name}")))?;
            fields.set_item(name, value).map_err(from_error)?;
        }
        let name = fields.get_item("__struct__").ok().flatten().expect("a struct has this key");
        fields.del_item("__struct__").map_err(from_error)?;
        self.interpreter
            .build_struct(py, &name, &fields)
            .map_err(|error| refusal(py, self.interpreter, error))
    }
}

fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Converted<'py> {
    match ffi::utf8(py, bytes) {
        Ok(text) => Ok(text.into_any()),
        Err(_) => Err(Refusal::new(
            "a binary that is not valid UTF-8 has no str; wrap it in Py.bytes/1 to pass bytes",
        )),
    }
}

fn into_text<'py>(value: Bound<'py, PyAny>) -> Result<Bound<'py, PyString>, Refusal> {
    value.cast_into::<PyString>().map_err(|error| Refusal::new(error.to_string()))
}

/// As `from_error`, for what may be a reference.
fn refusal(py: Python<'_>, interpreter: &Interpreter, error: PyErr) -> Refusal {
    let kind = interpreter.why_not_here(py, &error);
    let refusal = from_error(error);
    match kind {
        Some(kind) => refusal.of_kind(kind),
        None => refusal,
    }
}

/// The exception's own words: it was raised while a value was made, by `hash` or a constructor.
fn from_error(error: PyErr) -> Refusal {
    Python::attach(|py| {
        let value = error.value(py);
        let message = value
            .str()
            .map_or_else(|_| String::from("(no message)"), |text| text.to_string_lossy().into_owned());
        Refusal::new(message)
    })
}

fn key_text(key: &Bound<'_, PyAny>) -> String {
    let simple = key.is_instance_of::<PyString>() || key.is_exact_instance_of::<PyInt>();
    if !simple {
        return format!(
            "a {}",
            key.get_type().name().map_or_else(|_| "value".into(), |name| name.to_string())
        );
    }
    let text = key.str().map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned());
    let short: String = text.chars().take(60).collect();
    if key.is_exact_instance_of::<PyInt>() { short } else { format!("{short:?}") }
}
