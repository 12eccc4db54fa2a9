//! The NIF that always loads: it needs no Python. It opens the libpython that the other NIF is then
//! resolved against, and has what the node shares with worker processes.

mod ffi;
mod handle;
#[cfg(target_os = "linux")]
mod lanes;
mod process;
mod reason;
#[cfg(target_os = "linux")]
mod segment;

use std::sync::{Mutex, PoisonError};

/// What was opened: dlopen is process-wide, so there is one answer for the life of the node.
static OPENED: Mutex<Option<(String, String)>> = Mutex::new(None);

/// Opens libpython so that everything loaded later finds its symbols, and tells its version.
#[rustler::nif(schedule = "DirtyIo")]
fn open(path: String) -> Result<String, String> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    match &*opened {
        Some((before, version)) if *before == path => Ok(version.clone()),
        Some((before, _)) => Err(format!(
            "{before} is open in this node already, and a node holds one Python: restart it to use {path}"
        )),
        None => {
            let version = ffi::open_global(&path)?;
            *opened = Some((path, version.clone()));
            Ok(version)
        }
    }
}

rustler::init!("Elixir.Py.Native.Base");
