use pyo3::prelude::*;
use pyo3::types::PyString;

use super::to_python::{Decoder, Target};
use super::{Read, Refusal, Token};
use crate::interpreter::Interpreter;
use crate::request::{Arguments, Call, Request, Source};
use crate::routes::{Function, Names};
use crate::wire::{Fault, Kind};

/// What is asked. After it come the parts: of a call its target, name, arguments and keywords; of
/// code its text, variables, file (or nothing) and line; of an attribute its target and name; of a
/// reload the module; of a request within a context that request, as a tuple that begins with its
/// verb, and a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Call,
    Eval,
    Exec,
    GetAttr,
    Reload,
    Within,
}

/// What is asked, for people: `math.sqrt`.
pub fn subject(verb: Verb, reader: &mut impl Read) -> String {
    match verb {
        Verb::Call | Verb::GetAttr => format!("{}.{}", target(reader), name(reader)),
        Verb::Eval => String::from("eval"),
        Verb::Exec => String::from("exec"),
        Verb::Reload => format!("reload {}", name(reader)),
        Verb::Within => inner(reader).map_or_else(|| String::from("?"), |verb| subject(verb, reader)),
    }
}

/// What a request is that stands within another.
fn inner(reader: &mut impl Read) -> Option<Verb> {
    let Token::Tuple(_) = reader.next() else { return None };
    match name(reader).as_str() {
        "call" => Some(Verb::Call),
        "eval" => Some(Verb::Eval),
        "exec" => Some(Verb::Exec),
        "getattr" => Some(Verb::GetAttr),
        _ => None,
    }
}

/// A name, or the type of an object.
fn target(reader: &mut impl Read) -> String {
    match reader.name() {
        Token::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Token::Atom(id) => reader.atom_text(id),
        Token::Struct(len) => object_type(reader, len),
        Token::Tuple(3) => {
            skip(reader);
            skip(reader);
            name(reader)
        }
        _ => String::from("object"),
    }
}

fn object_type(reader: &mut impl Read, len: usize) -> String {
    let mut found = String::from("object");
    for _ in 0..len {
        if name(reader) == "type" {
            found = name(reader);
        } else {
            skip(reader);
        }
    }
    found
}

fn skip(reader: &mut impl Read) {
    match reader.next() {
        Token::List(len) => {
            (0..len).for_each(|_| skip(reader));
            reader.end_list();
        }
        Token::Tuple(len) => (0..len).for_each(|_| skip(reader)),
        Token::Map(len) | Token::Struct(len) => (0..2 * len).for_each(|_| skip(reader)),
        _ => {}
    }
}

fn name(reader: &mut impl Read) -> String {
    let id = match reader.name() {
        Token::Text(text) => return String::from_utf8_lossy(text).into_owned(),
        Token::Atom(id) => id,
        _ => return String::from("?"),
    };
    reader.atom_text(id)
}

/// Reads the parts of a request.
pub fn request<'py, R: Read>(
    py: Python<'py>,
    interpreter: &Interpreter,
    verb: Verb,
    reader: &mut R,
) -> Result<Request<'py>, Fault> {
    Parts(Decoder::new(py, interpreter, reader)).request(verb)
}

/// Reads one value, the answer to a question of Python code.
pub fn value<'py, R: Read>(
    py: Python<'py>,
    interpreter: &Interpreter,
    reader: &mut R,
) -> Result<Bound<'py, PyAny>, Fault> {
    Decoder::new(py, interpreter, reader)
        .next()
        .map_err(|refusal| refusal.into_fault(Kind::Encode, "the answer"))
}

struct Parts<'py, 'a, R>(Decoder<'py, 'a, R>);

impl<'py, R: Read> Parts<'py, '_, R> {
    fn request(&mut self, verb: Verb) -> Result<Request<'py>, Fault> {
        match verb {
            Verb::Call => self.call().map(Request::Call),
            Verb::Eval => self.source().map(Request::Eval),
            Verb::Exec => self.source().map(Request::Exec),
            Verb::GetAttr => self.function().map(Request::GetAttr),
            Verb::Reload => Ok(Request::Reload { module: self.name("module")? }),
            Verb::Within => self.within(),
        }
    }

    fn within(&mut self) -> Result<Request<'py>, Fault> {
        let nothing = || Fault::new(Kind::Encode, "what is asked within a context is no request");
        let verb = inner(self.0.reader()).ok_or_else(nothing)?;
        let request = Box::new(self.request(verb)?);
        let context = self.0.variables().map_err(refused("context"))?;
        Ok(Request::Within { request, context })
    }

    fn call(&mut self) -> Result<Call<'py>, Fault> {
        let mut call = Call { function: self.function()?, arguments: Arguments::new(), keywords: None };
        self.0.arguments(&mut call.arguments).map_err(refused("args"))?;
        call.keywords = self.0.keywords(&mut call.arguments).map_err(refused("kwargs"))?;
        Ok(call)
    }

    fn function(&mut self) -> Result<Function<'py>, Fault> {
        let target = match self.0.target().map_err(refused("target"))? {
            Target::Named(target) => target,
            Target::Object(object) => return Ok(Function::Of(object, self.name("name")?)),
        };
        let name = self.0.raw_name().map_err(refused("name"))?;
        let key = target.atom().zip(name.atom());
        if let Some(found) = key.and_then(|key| self.0.known(key)) {
            return Ok(Function::Found(found));
        }
        let target = self.0.spell(target).map_err(refused("target"))?;
        let name = self.0.spell(name).map_err(refused("name"))?;
        Ok(Function::Named(Names { target, name, key }))
    }

    fn source(&mut self) -> Result<Source<'py>, Fault> {
        let code = self.name("code")?;
        let variables = self.0.variables().map_err(refused("vars"))?;
        let file = self.value("file")?.cast_into::<PyString>().ok();
        let line = self.value("line")?.extract().unwrap_or(1);
        Ok(Source { code, variables, file, line })
    }

    fn name(&mut self, what: &'static str) -> Result<Bound<'py, PyString>, Fault> {
        self.0.name().map_err(refused(what))
    }

    fn value(&mut self, what: &'static str) -> Result<Bound<'py, PyAny>, Fault> {
        self.0.next().map_err(refused(what))
    }
}

fn refused(root: &'static str) -> impl FnOnce(Refusal) -> Fault {
    move |refusal| refusal.into_fault(Kind::Encode, root)
}
