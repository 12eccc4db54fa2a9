//! Starts what runs Python in a process of its own. A node starts it through a port, with the port's pipes as file
//! descriptors 3 and 4 and the node's own 0, 1 and 2:
//!
//!     py_launcher worker --socket NAME [--memory-limit BYTES] -- PROGRAM ARGUMENTS...
//!     py_launcher fork --socket NAME -- TEMPLATE

mod arguments;
mod ffi;
mod fork;
mod limits;
mod linux;
mod worker;

use std::env;
use std::process::ExitCode;

use arguments::Arguments;

/// The launcher itself failed. (127 is PROGRAM that cannot be started, as in a shell.)
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let result = match mode.to_str() {
        Some("worker") => Arguments::parse(arguments).and_then(|arguments| worker::run(&arguments)),
        Some("fork") => Arguments::parse(arguments).and_then(|arguments| fork::run(&arguments)),
        _ => Err(format!("{} is no mode: there are worker and fork", mode.display())),
    };
    result.unwrap_or_else(|reason| {
        eprintln!("py_launcher: {reason}");
        ExitCode::from(FAILED)
    })
}
