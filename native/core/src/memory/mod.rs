//! Memory that crosses without a copy: the other side's, which Python sees, and Python's, which the
//! other side sees.

mod ffi;

use std::any::Any;
use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PyType};

pub use ffi::Frozen;

use crate::ffi::View;
use crate::interpreter::Interpreter;

/// Memory that Python sees through a `memoryview`, which is read-only.
pub trait Memory: Any + Send + Sync {
    fn bytes(&self) -> &[u8];

    /// Whether nobody writes there as long as this lives.
    fn is_constant(&self) -> bool {
        true
    }
}

/// Python's own memory, of which somebody says that nobody writes there.
struct Kept(View);

impl Memory for Kept {
    fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// The class of what a `memoryview` on such memory is of, one for each interpreter.
pub(crate) struct MemoryType(Py<PyType>);

/// Views of views of arrays: more of them than this are none that anybody makes.
const LONGEST: usize = 16;

impl MemoryType {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        ffi::memory_type(py).map(|class| MemoryType(class.unbind()))
    }

    /// A read-only `memoryview`, which keeps the memory, as everything on it does.
    pub(crate) fn show<'py>(&self, py: Python<'py>, memory: Arc<dyn Memory>) -> PyResult<Bound<'py, PyAny>> {
        let exporter = ffi::export(self.0.bind(py), memory)?;
        PyMemoryView::from(&exporter).map(Bound::into_any)
    }

    /// Another view of the same bytes, that counts as one of bytes which do not change.
    pub(crate) fn freeze<'py>(&self, view: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let kept = View::of(view).ok_or_else(|| PyTypeError::new_err("expected a contiguous memoryview"))?;
        self.show(view.py(), Arc::new(Kept(kept)))
    }

    /// The bytes of a view and what keeps them, if they belong to an object that never changes them:
    /// `bytes`, or memory that is shown here. Between the two there may be views and arrays. What they
    /// say of themselves is not believed: the bytes are looked for in the owner's.
    pub(crate) fn frozen(&self, py: Python<'_>, view: &View) -> Option<Frozen> {
        let class = self.0.bind(py);
        let mut object = view.object(py)?;
        for _ in 0..LONGEST {
            if let Some(frozen) = Frozen::part(&object, class, view.as_slice()) {
                return Some(frozen);
            }
            let next = if object.is_exact_instance_of::<PyMemoryView>() { "obj" } else { "base" };
            object = object.getattr(next).ok()?;
        }
        None
    }
}

impl Interpreter {
    /// The bytes of a view, where they can be handed out as they are.
    pub fn frozen(&self, view: &View) -> Option<Frozen> {
        Python::attach(|py| self.memory.frozen(py, view))
    }
}
