use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};

use super::{MAX_DEPTH, Refusal, SHARED_FROM, Write};
use crate::ffi;
use crate::interpreter::Interpreter;

/// A graph that shares its parts unfolds into a tree, which may be exponentially larger.
const MAX_VALUES: usize = 100_000_000;

const CHANGED: &str = "it was changed by another thread while it was converted";

type Written = Result<(), Refusal>;

/// Values that are written between two looks at whether anybody still waits for them.
const LOOK_EVERY: usize = 1_024;

/// Writes a Python value, as long as `goes_on` says so.
pub fn from_python<'py, W: Write>(
    interpreter: &Interpreter,
    value: &Bound<'py, PyAny>,
    writer: &mut W,
    goes_on: &dyn Fn() -> bool,
) -> Written {
    Encoder { interpreter, writer, goes_on, written: 0, keys: Vec::new() }.value(value, 0)
}

/// Whether a value is written at once, without a look at what it holds.
pub fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_none()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyBytes>()
}

/// A number that both sides have.
pub enum Number {
    Int(i64),
    Float(f64),
}

/// What most short functions return, so that a wire can write it without more ado.
pub fn number(value: &Bound<'_, PyAny>) -> Option<Number> {
    if let Ok(float) = value.cast_exact::<PyFloat>() {
        let float = float.value();
        return float.is_finite().then_some(Number::Float(float));
    }
    if value.is_exact_instance_of::<PyInt>() { ffi::small_int(value).map(Number::Int) } else { None }
}

struct Encoder<'a, 'py, W: Write> {
    interpreter: &'a Interpreter,
    writer: &'a mut W,
    goes_on: &'a dyn Fn() -> bool,
    written: usize,
    /// Strings that were keys lately, and what was written for them.
    keys: Vec<Option<(Bound<'py, PyString>, W::Written)>>,
}

const KEYS: usize = 64;

impl<'py, W: Write> Encoder<'_, 'py, W> {
    /// By exact type first, the frequent ones before the rare ones; then by what it is derived from;
    /// then Python is asked.
    fn value(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> Written {
        self.count()?;
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.text(text)
        } else if value.is_exact_instance_of::<PyInt>() {
            self.int(value)
        } else if let Ok(float) = value.cast_exact::<PyFloat>() {
            self.float(float.value());
            Ok(())
        } else if value.is_none() {
            self.writer.none();
            Ok(())
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.list(list, depth)
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.dict(dict, depth)
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.tuple(tuple, depth)
        } else if let Ok(bool) = value.cast_exact::<PyBool>() {
            self.writer.bool(bool.is_true());
            Ok(())
        } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            self.bytes(bytes);
            Ok(())
        } else {
            self.derived(value, depth)
        }
    }

    fn derived(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> Written {
        if value.is_exact_instance_of::<PySet>() || value.is_exact_instance_of::<PyFrozenSet>() {
            self.set(value, depth)
        } else if let Some(view) = ffi::View::of(value) {
            self.writer.view(view);
            Ok(())
        } else if let Some(etf) = self.interpreter.opaque_etf(value) {
            self.opaque(&etf)
        } else if let Some(etf) = self.interpreter.function_etf(value) {
            self.function(&etf)
        } else if self.interpreter.is_atom(value) {
            self.atom(value)
        } else if self.interpreter.has_encoder(value) {
            self.described(value, depth)
        } else if let Ok(text) = value.cast::<PyString>() {
            self.text(text)
        } else if value.is_instance_of::<PyInt>() {
            self.int(value)
        } else if let Ok(float) = value.cast::<PyFloat>() {
            self.float(float.value());
            Ok(())
        } else if let Ok(bytes) = value.cast::<PyBytes>() {
            self.bytes(bytes);
            Ok(())
        } else if let Ok(list) = value.cast::<PyList>() {
            self.list(list, depth)
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            self.tuple(tuple, depth)
        } else if let Ok(dict) = value.cast::<PyDict>() {
            self.dict(dict, depth)
        } else if value.is_instance_of::<PySet>() || value.is_instance_of::<PyFrozenSet>() {
            self.set(value, depth)
        } else if let Some((name, fields)) = self.interpreter.struct_parts(value) {
            self.structure(&name, &fields, depth)
        } else {
            self.described(value, depth)
        }
    }

    fn described(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> Written {
        let plain = self.interpreter.describe(value).map_err(|error| {
            Refusal::new(error.value(value.py()).str().map_or_else(
                |_| String::from("it has no Elixir value"),
                |text| text.to_string_lossy().into_owned(),
            ))
        })?;
        check_depth(depth)?;
        match self.interpreter.referred(&plain) {
            Some(object) => self.object(&object, depth),
            None => self.value(&plain, depth + 1),
        }
    }

    /// A reference: its fields, and what holds the object.
    fn object(&mut self, object: &Bound<'py, PyAny>, depth: usize) -> Written {
        let fields = self.interpreter.refer(object).map_err(|error| Refusal::new(error.to_string()))?;
        let number = fields[3].extract().ok();
        self.writer.map(6);
        self.known_key("__struct__");
        self.known_atom("Elixir.Py.Object");
        self.known_key("handle");
        self.writer.handle(object, number);
        for (key, value) in ["type", "pool", "place", "number"].into_iter().zip(&fields) {
            self.known_key(key);
            self.value(value, depth + 1)?;
        }
        self.end_map(6)
    }

    fn text(&mut self, text: &Bound<'_, PyString>) -> Written {
        let utf8 = text.to_str().map_err(|_| {
            Refusal::new("a str with lone surrogates is not text; encode it to bytes in Python")
        })?;
        self.writer.binary(utf8.as_bytes());
        Ok(())
    }

    fn atom(&mut self, value: &Bound<'_, PyAny>) -> Written {
        let name = value.cast::<PyString>().ok().and_then(|text| text.to_str().ok());
        if name.is_some_and(|name| self.writer.atom(name)) {
            return Ok(());
        }
        let name = value.str().map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned());
        Err(Refusal::new(format!(
            "the atom {name:?} does not exist in Elixir, and atoms are never made from Python"
        )))
    }

    fn int(&mut self, value: &Bound<'_, PyAny>) -> Written {
        if let Some(small) = ffi::small_int(value) {
            self.writer.int(small);
            return Ok(());
        }
        let (negative, magnitude) = self
            .interpreter
            .magnitude(value)
            .map_err(|error| Refusal::new(format!("an int that cannot be read: {error}")))?;
        if self.writer.big(negative, &magnitude) {
            Ok(())
        } else {
            Err(Refusal::new(format!("an int of {} bytes is larger than Elixir can hold", magnitude.len())))
        }
    }

    fn float(&mut self, value: f64) {
        if value.is_finite() {
            self.writer.float(value);
        } else {
            self.writer.atom(if value.is_nan() {
                "nan"
            } else if value > 0.0 {
                "infinity"
            } else {
                "neg_infinity"
            });
        }
    }

    fn bytes(&mut self, bytes: &Bound<'_, PyBytes>) {
        let content = bytes.as_bytes();
        if content.len() < SHARED_FROM {
            self.writer.binary(content);
        } else {
            self.writer.shared_binary(bytes.clone().unbind(), content.len());
        }
    }

    fn opaque(&mut self, etf: &[u8]) -> Written {
        if self.writer.opaque(etf) {
            Ok(())
        } else {
            Err(Refusal::new("a Pid, Ref or Port whose bytes are no Erlang term"))
        }
    }

    fn function(&mut self, etf: &[u8]) -> Written {
        if self.writer.function(etf) {
            Ok(())
        } else {
            Err(Refusal::new("a function of a module that is not loaded any more"))
        }
    }

    fn list(&mut self, list: &Bound<'py, PyList>, depth: usize) -> Written {
        check_depth(depth)?;
        let len = list.len();
        self.writer.list(len);
        for index in 0..len {
            let item = list.get_item(index).map_err(|_| Refusal::new(CHANGED))?;
            self.value(&item, depth + 1).map_err(|refusal| refusal.within(|| format!("[{index}]")))?;
        }
        self.writer.end_list(len);
        Ok(())
    }

    fn tuple(&mut self, tuple: &Bound<'py, PyTuple>, depth: usize) -> Written {
        check_depth(depth)?;
        let len = tuple.len();
        self.writer.tuple(len);
        for index in 0..len {
            let item = tuple.get_borrowed_item(index).map_err(|_| Refusal::new(CHANGED))?;
            self.value(&item, depth + 1).map_err(|refusal| refusal.within(|| format!("[{index}]")))?;
        }
        self.writer.end_tuple(len);
        Ok(())
    }

    fn dict(&mut self, dict: &Bound<'py, PyDict>, depth: usize) -> Written {
        check_depth(depth)?;
        let len = dict.len();
        self.writer.map(len);
        let mut entries = ffi::DictEntries::new(dict);
        let mut seen = 0;
        while let Some((key, value)) = entries.next() {
            self.writer.begin_key();
            self.key(&key, depth + 1).map_err(|refusal| refusal.within(|| String::from("[a key]")))?;
            self.writer.end_key();
            self.value(&value, depth + 1).map_err(|refusal| refusal.within(|| step(&key)))?;
            seen += 1;
            if dict.len() != len || seen > len {
                return Err(Refusal::new(CHANGED));
            }
        }
        if seen != len {
            return Err(Refusal::new(CHANGED));
        }
        self.end_map(len)
    }

    /// Keys are told apart by where they are: the string that is kept keeps its place.
    fn key(&mut self, key: &Bound<'py, PyAny>, depth: usize) -> Written {
        let Ok(text) = key.cast_exact::<PyString>() else { return self.value(key, depth) };
        if self.keys.is_empty() {
            self.keys.resize_with(KEYS, || None);
        }
        let place = (key.as_ptr() as usize >> 4) % KEYS;
        if let Some((known, written)) = &self.keys[place]
            && known.is(key)
        {
            self.writer.again(*written);
            return Ok(());
        }
        self.text(text)?;
        self.keys[place] = self.writer.last().map(|written| (text.clone(), written));
        Ok(())
    }

    fn set(&mut self, set: &Bound<'py, PyAny>, depth: usize) -> Written {
        check_depth(depth)?;
        let items = ffi::items(set).map_err(|error| Refusal::new(error.to_string()))?;
        let version = self.interpreter.set_version();
        self.writer.map(if version { 3 } else { 2 });
        self.known_key("__struct__");
        self.known_atom("Elixir.MapSet");
        if version {
            self.known_key("version");
            self.writer.int(2);
        }
        self.known_key("map");
        self.writer.map(items.len());
        for item in items.iter() {
            self.writer.begin_key();
            self.value(&item, depth + 1)
                .map_err(|refusal| refusal.within(|| String::from("[an element]")))?;
            self.writer.end_key();
            self.writer.list(0);
            self.writer.end_list(0);
        }
        self.end_map(items.len())?;
        self.end_map(if version { 3 } else { 2 })
    }

    fn structure(&mut self, name: &str, fields: &Bound<'py, PyDict>, depth: usize) -> Written {
        check_depth(depth)?;
        let len = fields.len() + 1;
        self.writer.map(len);
        self.known_key("__struct__");
        if !self.writer.atom(name) {
            return Err(Refusal::new(format!("the struct {name} does not exist in Elixir")));
        }
        let mut entries = ffi::DictEntries::new(fields);
        while let Some((key, value)) = entries.next() {
            self.writer.begin_key();
            self.atom(&key)?;
            self.writer.end_key();
            self.value(&value, depth + 1).map_err(|refusal| refusal.within(|| step(&key)))?;
        }
        self.end_map(len)
    }

    fn end_map(&mut self, len: usize) -> Written {
        if self.writer.end_map(len) {
            Ok(())
        } else {
            Err(Refusal::new("two of its keys or elements are the same in Elixir"))
        }
    }

    fn known_key(&mut self, name: &str) {
        self.writer.begin_key();
        self.known_atom(name);
        self.writer.end_key();
    }

    /// An atom that this library's own Elixir side has.
    fn known_atom(&mut self, name: &str) {
        let exists = self.writer.atom(name);
        debug_assert!(exists, "{name}");
    }

    fn count(&mut self) -> Written {
        self.written += 1;
        if self.written > MAX_VALUES {
            return Err(Refusal::new(format!("it unfolds into more than {MAX_VALUES} values")));
        }
        if self.written.is_multiple_of(LOOK_EVERY) && !(self.goes_on)() {
            return Err(Refusal::new("nobody waits for it any more"));
        }
        Ok(())
    }
}

fn check_depth(depth: usize) -> Written {
    if depth < MAX_DEPTH {
        Ok(())
    } else {
        Err(Refusal::new(format!("it is nested over {MAX_DEPTH} deep, or contains itself")))
    }
}

fn step(key: &Bound<'_, PyAny>) -> String {
    if let Ok(text) = key.cast::<PyString>() {
        format!("[{:?}]", text.to_string_lossy().chars().take(60).collect::<String>())
    } else if key.is_exact_instance_of::<PyInt>() {
        format!("[{}]", key.str().map_or_else(|_| String::new(), |text| text.to_string()))
    } else {
        String::from("[a key]")
    }
}
