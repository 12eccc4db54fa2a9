//! Binaries on memory of Python's.

use py_core::Interpreter;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustler::Resource;

use crate::ffi::Memory;

/// Keeps a `bytes` object for as long as the BEAM has a binary on its memory.
pub struct SharedBytes {
    /// Taken when it is dropped.
    owner: Option<Py<PyBytes>>,
    memory: Memory,
    interpreter: &'static Interpreter,
}

#[rustler::resource_impl]
impl Resource for SharedBytes {}

impl SharedBytes {
    pub fn new(owner: Py<PyBytes>, interpreter: &'static Interpreter) -> Self {
        let memory = Python::attach(|py| Memory::of(&owner, py));
        SharedBytes { owner: Some(owner), memory, interpreter }
    }

    pub fn as_slice(&self) -> &[u8] {
        self.owner.as_ref().map_or(&[], |owner| self.memory.as_slice(owner))
    }
}

impl Drop for SharedBytes {
    /// The garbage collector runs this on a scheduler, which must not wait for the GIL.
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            self.interpreter.release(owner.into_any());
        }
    }
}
