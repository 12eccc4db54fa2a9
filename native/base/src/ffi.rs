#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

type GetVersion = unsafe extern "C" fn() -> *const c_char;

/// Opens the library for good, with its symbols visible to every library loaded after it.
pub fn open_global(path: &str) -> Result<String, String> {
    // SAFETY: the initialisers of libpython only set up its own data; that the file is a libpython
    // is what the caller found out by asking its interpreter.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
        .map_err(|error| format!("{path} cannot be opened: {error}"))?;
    let version = version(&library).map_err(|error| format!("{path} is no libpython: {error}"));
    std::mem::forget(library);
    version
}

fn version(library: &Library) -> Result<String, libloading::Error> {
    // SAFETY: the symbol has had this type in every CPython 3.
    let get_version = unsafe { library.get::<GetVersion>("Py_GetVersion")? };
    // SAFETY: Py_GetVersion may be called before Python is initialised and returns a static string.
    let text = unsafe { CStr::from_ptr(get_version()) };
    Ok(text.to_string_lossy().into_owned())
}
