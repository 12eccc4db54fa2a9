//! Binaries on memory of Python's.

use py_core::{Frozen, Interpreter};
use rustler::Resource;

/// Keeps an object of Python's for as long as the BEAM has a binary on its memory.
pub struct SharedBytes {
    /// Taken when it is dropped.
    frozen: Option<Frozen>,
    interpreter: &'static Interpreter,
}

#[rustler::resource_impl]
impl Resource for SharedBytes {}

impl SharedBytes {
    pub fn new(frozen: Frozen, interpreter: &'static Interpreter) -> Self {
        SharedBytes { frozen: Some(frozen), interpreter }
    }

    pub fn as_slice(&self) -> &[u8] {
        self.frozen.as_ref().map_or(&[], Frozen::as_slice)
    }
}

impl Drop for SharedBytes {
    /// The garbage collector runs this on a scheduler, which must not wait for the GIL.
    fn drop(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            self.interpreter.release(frozen.into_owner());
        }
    }
}
