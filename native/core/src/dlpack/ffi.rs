//! The `unsafe` of DLPack: its structures, as `dlpack.h` has them.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::ptr;

use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::{DataType, MAX_AXES};
use crate::ffi::View;

/// `DLTensor`.
#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: i32,
    device_id: i32,
    axes: i32,
    data_type: DataType,
    shape: *mut i64,
    /// In elements; null where they lie one after another.
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor`.
#[repr(C)]
struct Managed {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    major: u32,
    minor: u32,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: Tensor,
}

const MAJOR: u32 = 1;
const READ_ONLY: u64 = 1;

const CAPSULE: &CStr = c"dltensor";
const USED: &CStr = c"used_dltensor";
const VERSIONED_CAPSULE: &CStr = c"dltensor_versioned";
const VERSIONED_USED: &CStr = c"used_dltensor_versioned";

enum Owned {
    Managed(*mut Managed),
    Versioned(*mut Versioned),
}

/// A tensor of another library's, which keeps it until this is dropped: attached, since it may be an object.
pub struct Borrowed {
    owned: Owned,
    data: *const u8,
    len: usize,
}

// SAFETY: the memory stays where it is, and the rest is touched attached, whatever the thread.
unsafe impl Send for Borrowed {}
// SAFETY: as above.
unsafe impl Sync for Borrowed {}

impl Borrowed {
    /// Takes the tensor out of a capsule, which is used up then.
    pub fn take(capsule: &Bound<'_, PyAny>) -> PyResult<Self> {
        let object = capsule.as_ptr();
        // SAFETY: attached; a capsule of either name holds such a structure until it is renamed, which hands it
        // over. This is the protocol, and no part of it can be checked.
        unsafe {
            let owned = if ffi::PyCapsule_IsValid(object, VERSIONED_CAPSULE.as_ptr()) != 0 {
                let pointer = ffi::PyCapsule_GetPointer(object, VERSIONED_CAPSULE.as_ptr());
                ffi::PyCapsule_SetName(object, VERSIONED_USED.as_ptr());
                Owned::Versioned(pointer.cast())
            } else if ffi::PyCapsule_IsValid(object, CAPSULE.as_ptr()) != 0 {
                let pointer = ffi::PyCapsule_GetPointer(object, CAPSULE.as_ptr());
                ffi::PyCapsule_SetName(object, USED.as_ptr());
                Owned::Managed(pointer.cast())
            } else {
                return Err(PyTypeError::new_err("its __dlpack__ returned no capsule that is unused"));
            };
            let borrowed = Borrowed { owned, data: ptr::null(), len: 0 };
            if let Owned::Versioned(versioned) = borrowed.owned
                && (*versioned).major != MAJOR
            {
                let major = (*versioned).major;
                return Err(PyBufferError::new_err(format!("its DLPack is of version {major}, not {MAJOR}")));
            }
            Ok(borrowed)
        }
    }

    fn tensor(&self) -> &Tensor {
        // SAFETY: it is there until `self` is dropped, and nobody writes in it.
        unsafe {
            match self.owned {
                Owned::Managed(managed) => &(*managed).tensor,
                Owned::Versioned(versioned) => &(*versioned).tensor,
            }
        }
    }

    pub fn device(&self) -> i32 {
        self.tensor().device
    }

    pub fn data_type(&self) -> DataType {
        self.tensor().data_type
    }

    /// None where it has more axes than anything has.
    pub fn shape(&self) -> Option<&[i64]> {
        self.numbers(self.tensor().shape)
    }

    /// In elements; None where they lie one after another.
    pub fn strides(&self) -> Option<&[i64]> {
        self.numbers(self.tensor().strides)
    }

    fn numbers(&self, numbers: *const i64) -> Option<&[i64]> {
        let axes = usize::try_from(self.tensor().axes).ok().filter(|axes| *axes <= MAX_AXES)?;
        if axes == 0 {
            return Some(&[]);
        }
        // SAFETY: where it is not null there is a number for each axis.
        (!numbers.is_null()).then(|| unsafe { std::slice::from_raw_parts(numbers, axes) })
    }

    /// What is to be seen of it: so many bytes, from `lowest` bytes beside the first element on.
    pub fn show(&mut self, lowest: i64, len: usize) -> PyResult<()> {
        let Tensor { data, byte_offset, .. } = *self.tensor();
        if len == 0 {
            return Ok(());
        }
        if data.is_null() {
            return Err(PyBufferError::new_err("its numbers are nowhere"));
        }
        let first = data.cast::<u8>().cast_const().wrapping_add(byte_offset as usize);
        self.data = first.wrapping_offset(lowest as isize);
        self.len = len;
        Ok(())
    }

    pub fn as_slice(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `show` was told what the tensor says of its elements, which are there until `self` is dropped.
        // Others may write there where its library lets them, as with any buffer of Python's.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // SAFETY: it was handed over to `self`, and its deleter is called once. That is what frees it.
        unsafe {
            match self.owned {
                Owned::Managed(managed) => (*managed).deleter.into_iter().for_each(|delete| delete(managed)),
                Owned::Versioned(versioned) => {
                    (*versioned).deleter.into_iter().for_each(|delete| delete(versioned));
                }
            }
        }
    }
}

/// Numbers of ours that another library is to have: what its structure points to.
pub struct Lent {
    view: View,
    first: usize,
    data_type: DataType,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

/// The structure, and what it points to.
struct Kept<T> {
    structure: T,
    _lent: Lent,
}

impl Lent {
    /// The first element is `first` bytes behind the begin of the view; the strides are in elements.
    pub fn new(view: View, first: usize, data_type: DataType, shape: Vec<i64>, strides: Vec<i64>) -> Self {
        Lent { view, first, data_type, shape, strides }
    }

    fn tensor(&mut self) -> Tensor {
        let bytes = self.view.as_slice();
        let data = if bytes.is_empty() { ptr::null() } else { bytes.as_ptr().wrapping_add(self.first) };
        Tensor {
            data: data.cast_mut().cast(),
            device: 1,
            device_id: 0,
            axes: self.shape.len() as i32,
            data_type: self.data_type,
            shape: self.shape.as_mut_ptr(),
            strides: self.strides.as_mut_ptr(),
            byte_offset: 0,
        }
    }

    pub fn into_capsule(mut self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let tensor = self.tensor();
        let structure = Managed { tensor, context: ptr::null_mut(), deleter: Some(delete) };
        let kept = Box::into_raw(Box::new(Kept { structure, _lent: self }));
        // SAFETY: nobody else has it yet. A box of it is freed by what its structure points to.
        unsafe {
            (*kept).structure.context = kept.cast();
            capsule(py, &raw mut (*kept).structure, CAPSULE, delete, destroy)
        }
    }

    pub fn into_versioned_capsule(mut self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let flags = if self.view.is_read_only() { READ_ONLY } else { 0 };
        let tensor = self.tensor();
        let (major, minor, context) = (MAJOR, 0, ptr::null_mut());
        let structure = Versioned { major, minor, context, deleter: Some(delete_versioned), flags, tensor };
        let kept = Box::into_raw(Box::new(Kept { structure, _lent: self }));
        // SAFETY: as above.
        unsafe {
            (*kept).structure.context = kept.cast();
            capsule(py, &raw mut (*kept).structure, VERSIONED_CAPSULE, delete_versioned, destroy_versioned)
        }
    }
}

/// # Safety
/// The structure must be one that `delete` frees.
unsafe fn capsule<'py, T>(
    py: Python<'py>,
    structure: *mut T,
    name: &'static CStr,
    delete: unsafe extern "C" fn(*mut T),
    destroy: unsafe extern "C" fn(*mut ffi::PyObject),
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; the capsule owns the structure, unless there is none.
    unsafe {
        let capsule = ffi::PyCapsule_New(structure.cast(), name.as_ptr(), Some(destroy));
        if capsule.is_null() {
            delete(structure);
        }
        Bound::from_owned_ptr_or_err(py, capsule)
    }
}

unsafe extern "C" fn delete(managed: *mut Managed) {
    // SAFETY: the context of a structure of ours is the box that it is in, and this is called once.
    unsafe { free::<Managed>((*managed).context) }
}

unsafe extern "C" fn delete_versioned(versioned: *mut Versioned) {
    // SAFETY: as above.
    unsafe { free::<Versioned>((*versioned).context) }
}

/// # Safety
/// The pointer must be that of a box of this type, which is owned here.
unsafe fn free<T>(kept: *mut c_void) {
    // SAFETY: as above. The library calls on any thread, which is attached then, since the view is an object's: not by
    // pyo3, to which a thread of ours is attached even while the library that it is in has let others in. Where Python
    // is gone nothing of it is touched any more.
    unsafe {
        if ffi::Py_IsInitialized() == 0 {
            return;
        }
        let state = ffi::PyGILState_Ensure();
        drop(Box::from_raw(kept.cast::<Kept<T>>()));
        ffi::PyGILState_Release(state);
    }
}

/// Of a capsule that nobody used.
unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
    // SAFETY: only capsules of ours have this destructor; the name tells whether the structure is in there.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, CAPSULE.as_ptr()) != 0 {
            delete(ffi::PyCapsule_GetPointer(capsule, CAPSULE.as_ptr()).cast());
        }
    }
}

unsafe extern "C" fn destroy_versioned(capsule: *mut ffi::PyObject) {
    // SAFETY: as above.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, VERSIONED_CAPSULE.as_ptr()) != 0 {
            delete_versioned(ffi::PyCapsule_GetPointer(capsule, VERSIONED_CAPSULE.as_ptr()).cast());
        }
    }
}
