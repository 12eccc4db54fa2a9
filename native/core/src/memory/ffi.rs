//! The `unsafe` of memory that crosses.

#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::slice;
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use super::Memory;

/// What a `memoryview` is of.
#[repr(C)]
struct Exporter {
    head: ffi::PyObject,
    memory: Arc<dyn Memory>,
}

/// Makes the class of exporters. A class of pyo3's would be shared by interpreters.
pub fn memory_type(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let mut slots = [
        ffi::PyType_Slot { slot: ffi::Py_bf_getbuffer, pfunc: get_buffer as *mut c_void },
        ffi::PyType_Slot { slot: ffi::Py_tp_dealloc, pfunc: deallocate as *mut c_void },
        ffi::PyType_Slot { slot: 0, pfunc: ptr::null_mut() },
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let mut spec = ffi::PyType_Spec {
        name: c"erlang.Memory".as_ptr(),
        basicsize: size_of::<Exporter>() as c_int,
        itemsize: 0,
        flags: flags as c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: attached; the functions have the types of their slots, the name is static, and instances
    // are made by `export` alone.
    let class = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&mut spec))? };
    class.cast_into::<PyType>().map_err(PyErr::from)
}

/// An object that shows the memory, and keeps it.
pub fn export<'py>(class: &Bound<'py, PyType>, memory: Arc<dyn Memory>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; the class is that of exporters, so that there is room for one, and nobody sees the
    // object before its field is written.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class.as_type_ptr(), 0);
        if object.is_null() {
            return Err(PyErr::fetch(class.py()));
        }
        (&raw mut (*object.cast::<Exporter>()).memory).write(memory);
        Ok(Bound::from_owned_ptr(class.py(), object))
    }
}

unsafe extern "C" fn get_buffer(
    object: *mut ffi::PyObject,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> c_int {
    // SAFETY: Python calls this for exporters, with a view to be filled. That takes a reference to the
    // object, which keeps the memory; nobody writes through it, since it says that it is read-only.
    unsafe {
        let bytes = (*object.cast::<Exporter>()).memory.bytes();
        let start = bytes.as_ptr().cast_mut().cast();
        ffi::PyBuffer_FillInfo(view, object, start, bytes.len() as ffi::Py_ssize_t, 1, flags)
    }
}

unsafe extern "C" fn deallocate(object: *mut ffi::PyObject) {
    // SAFETY: Python calls this once, for an exporter that nothing refers to any more. Each has a
    // reference to its class.
    unsafe {
        let class = ffi::Py_TYPE(object);
        if !crate::fork::is_child() {
            ptr::drop_in_place(&raw mut (*object.cast::<Exporter>()).memory);
        }
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

/// What an exporter shows, of memory that nobody changes; None for anything else.
fn lender(object: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> Option<Arc<dyn Memory>> {
    if !object.get_type().is(class) {
        return None;
    }
    // SAFETY: an object of the class is an exporter, which is borrowed.
    let memory = unsafe { &(*object.as_ptr().cast::<Exporter>()).memory };
    memory.is_constant().then(|| Arc::clone(memory))
}

/// Bytes that nobody changes, and the object that keeps them.
pub struct Frozen {
    owner: Py<PyAny>,
    lender: Option<Arc<dyn Memory>>,
    data: *const u8,
    len: usize,
}

// SAFETY: the bytes are only read, and the owner is touched only when it is given away.
unsafe impl Send for Frozen {}
// SAFETY: as above.
unsafe impl Sync for Frozen {}

impl Frozen {
    pub fn bytes(bytes: Bound<'_, PyBytes>) -> Self {
        let content = bytes.as_bytes();
        let (data, len) = (content.as_ptr(), content.len());
        Frozen { owner: bytes.into_any().unbind(), lender: None, data, len }
    }

    /// A part of what the object has, if it is one that never changes it; None where it is not.
    pub(super) fn part(owner: &Bound<'_, PyAny>, class: &Bound<'_, PyType>, part: &[u8]) -> Option<Self> {
        let lender = lender(owner, class);
        let whole = match &lender {
            Some(memory) => memory.bytes(),
            None => owner.cast::<PyBytes>().ok()?.as_bytes(),
        };
        let (whole, wanted) = (whole.as_ptr_range(), part.as_ptr_range());
        let within = whole.start <= wanted.start && wanted.end <= whole.end;
        within.then(|| Frozen { owner: owner.clone().unbind(), lender, data: part.as_ptr(), len: part.len() })
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: both ways to make one check that the bytes are the owner's, which is here, and of a kind
        // that never moves or changes them.
        unsafe { slice::from_raw_parts(self.data, self.len) }
    }

    /// The memory of the other side's that they are in, if it is of that kind.
    pub fn lender<T: Memory>(&self) -> Option<&T> {
        let memory: &dyn Any = &**self.lender.as_ref()?;
        memory.downcast_ref()
    }

    /// What keeps them, for who must not drop it here.
    pub fn into_owner(self) -> Py<PyAny> {
        self.owner
    }
}
