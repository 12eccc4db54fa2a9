//! Limits of resources. System calls only: they also run between fork and exec.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Python recurses deeply in C, and takes more than the usual 8 MB for what its own limits allow.
const STACK: u64 = 64 << 20;

/// Raises the size to which a main thread's stack may grow, as far as that is allowed.
pub fn raise_stack() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Stack);
    let wanted = maximum.map_or(STACK, |maximum| maximum.min(STACK));
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Stack, Rlimit { current: Some(wanted), maximum })?;
    }
    Ok(())
}

/// Limits the address space, for good: the hard limit goes down too.
pub fn limit_memory(bytes: u64) -> io::Result<()> {
    let bytes = getrlimit(Resource::As).maximum.map_or(bytes, |maximum| maximum.min(bytes));
    Ok(setrlimit(Resource::As, Rlimit { current: Some(bytes), maximum: Some(bytes) })?)
}
