//! Starts what runs Python in a process of its own. A node starts it through a port, with the port's pipes as file
//! descriptors 3 and 4 and the node's own 0, 1 and 2:
//!
//!     py_launcher worker --socket NAME [--memory-limit BYTES] -- PROGRAM ARGUMENTS...
//!     py_launcher fork --socket NAME -- TEMPLATE
//!     py_launcher script [--stdin] [--cd DIR] [--memory-limit BYTES] [--max-output BYTES] -- PROGRAM ARGUMENTS...

mod arguments;
mod family;
mod ffi;
mod fork;
mod limits;
mod linux;
mod port;
mod script;
mod streams;
mod worker;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use arguments::Arguments;

/// The launcher itself failed. (127 is PROGRAM that cannot be started, as in a shell.)
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let run = match mode.to_str() {
        Some("worker") => worker::run,
        Some("fork") => fork::run,
        Some("script") => script::run,
        _ => |_: &Arguments| Err("the first argument is worker, fork or script".into()),
    };
    let result = Arguments::parse(arguments).and_then(|arguments| run(&arguments));
    result.unwrap_or_else(|reason| {
        // The node that would read it may be gone.
        let _unread = writeln!(io::stderr(), "py_launcher: {reason}");
        ExitCode::from(FAILED)
    })
}
