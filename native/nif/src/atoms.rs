//! The atoms this side names, and the names of all others.

use rustler::{Atom, Env, Term};

use crate::ffi;

rustler::atoms! {
    nil,
    undefined,
    r#true = "true",
    r#false = "false",
    nan,
    infinity,
    neg_infinity,
    ok,
    error,
    data,
    state,
    __struct__,
    __exception__,
    py_bytes = "Elixir.Py.Bytes",
    py_buffer = "Elixir.Py.Buffer",
    py_array = "Elixir.Py.Array",
    nx_binary = "Elixir.Nx.BinaryBackend",
    py_object = "Elixir.Py.Object",
    py_error = "Elixir.Py.Error",
    py_output_process = "Elixir.Py.Output",
    py_result,
    py_booted,
    py_forward,
    py_forget,
    py_callbacks = "Elixir.Py.Callbacks",
    kind,
    message,
    r#type = "type",
    module,
    traceback,
    notes,
    cause,
    context,
    exceptions,
    exit,
    object,
    call,
    eval,
    exec,
    getattr,
    reload,
    within,
    overloaded,
    stuck,
    stopped,
    large,
    handle,
    place,
    number,
    pool,
    not_available,
    elsewhere,
    left,
    cancelled,
    replied,
    overran,
    deferred,
    busy,
    foreign_threads,
    overrun,
    unsupported,
    not_serving,
    // What only the Python package names: these must exist for it to send them.
    io_request,
    put_chars,
    unicode,
    py_output,
    py_log,
    file,
    line,
    function,
    source,
    logger,
    thread,
    leader,
    age_ms,
    awaiting,
    frames,
    version,
    map,
    dtype,
    shape,
    strides,
    writable,
    f,
    s,
    u,
    c,
    bool,
    big,
}

/// Atoms are words that mean the same everywhere in a node: the word identifies the name.
pub fn id(term: Term<'_>) -> u64 {
    ffi::word(term)
}

/// The field of a struct of this name whose binary Python sees through a view, as that of a `%Py.Buffer{}`.
pub fn shown(name: Term<'_>) -> Option<Atom> {
    if py_array() == name {
        Some(data())
    } else if nx_binary() == name {
        Some(state())
    } else {
        None
    }
}

/// The name of the atom with this id, in UTF-8, which `erl_nif` gives only as external term format
/// on OTP 25: 131, the tag, the length in one byte or two, the name.
pub fn text(id: u64) -> String {
    let etf = ffi::etf_of_word(id);
    let name = match etf.get(1) {
        Some(&(SMALL_ATOM_UTF8_EXT | SMALL_ATOM_EXT)) => &etf[3..],
        _ => &etf[4..],
    };
    match etf.get(1) {
        Some(&(ATOM_EXT | SMALL_ATOM_EXT)) => name.iter().map(|byte| char::from(*byte)).collect(),
        _ => String::from_utf8_lossy(name).into_owned(),
    }
}

const ATOM_EXT: u8 = 100;
const SMALL_ATOM_EXT: u8 = 115;
const SMALL_ATOM_UTF8_EXT: u8 = 119;

/// The atom of this name that the core uses; all of them are above or in every Erlang system.
pub fn known(env: Env<'_>, name: &str) -> Atom {
    Atom::from_str(env, name).unwrap_or_else(|_| nil())
}
