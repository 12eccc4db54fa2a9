//! Arrays of other libraries, and ours for them, by DLPack: a capsule that tells where the numbers are, and
//! their type and shape (<https://dmlc.github.io/dlpack/latest/c_api.html>).

mod ffi;

use std::sync::Arc;

use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyTuple};

use crate::ffi::View;
use crate::interpreter::Interpreter;
use crate::memory::Memory;
use ffi::{Borrowed, Lent};

/// What the numbers are: one of DLPack's `DLDataTypeCode`s, and their size.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct DataType {
    code: u8,
    bits: u8,
    /// How many make up one element.
    lanes: u16,
}

/// How many axes anything of Python's has at most.
const MAX_AXES: usize = 64;

/// Devices whose memory the CPU reads: its own, and what CUDA and ROCm allocate in it or show in it.
const ON_CPU: [i32; 4] = [1, 3, 11, 13];

impl Memory for Borrowed {
    fn bytes(&self) -> &[u8] {
        self.as_slice()
    }

    /// Whoever it was borrowed of may write there.
    fn is_constant(&self) -> bool {
        false
    }
}

/// Where elements are from the first one, in bytes: the lowest of them, and the end of the highest.
struct Extent {
    lowest: i64,
    end: i64,
}

impl Extent {
    /// None where the numbers are none that memory has.
    fn new(shape: &[i64], strides: &[i64], item: i64) -> Option<Self> {
        let mut extent = Extent { lowest: 0, end: item };
        for (size, stride) in shape.iter().zip(strides) {
            let last = size.checked_sub(1)?.checked_mul(*stride)?;
            let side = if last < 0 { &mut extent.lowest } else { &mut extent.end };
            *side = side.checked_add(last)?;
        }
        if shape.iter().any(|size| *size < 0) {
            return None;
        }
        Some(if shape.contains(&0) { Extent { lowest: 0, end: 0 } } else { extent })
    }

    fn len(&self) -> Option<usize> {
        self.end.checked_sub(self.lowest).and_then(|len| len.try_into().ok())
    }
}

/// The strides of elements that lie one after another, the last axis first.
fn row_major(shape: &[i64], item: i64) -> Vec<i64> {
    let mut strides = vec![item; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// `from_dlpack(capsule)`: the memory, the type as code and bits, the shape, and the strides in bytes. The view
/// begins at the lowest address, and keeps what the capsule kept.
pub fn take<'py>(
    interpreter: &'static Interpreter,
    py: Python<'py>,
    arguments: &[Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let [capsule] = arguments else {
        return Err(PyTypeError::new_err("from_dlpack(capsule) takes one argument"));
    };
    let mut tensor = Borrowed::take(capsule)?;
    let (device, DataType { code, bits, lanes }) = (tensor.device(), tensor.data_type());
    if !ON_CPU.contains(&device) {
        return Err(PyBufferError::new_err(format!(
            "its numbers are not in memory of the CPU, but on device {device}"
        )));
    }
    if lanes != 1 || bits % 8 != 0 || bits == 0 {
        return Err(PyBufferError::new_err(format!("its elements are {lanes} times {bits} bits each")));
    }
    let item = i64::from(bits / 8);
    let shape = tensor.shape().ok_or_else(unreasonable)?.to_vec();
    let strides = match tensor.strides() {
        Some(strides) => strides.iter().map(|stride| stride.saturating_mul(item)).collect(),
        None => row_major(&shape, item),
    };
    let extent = Extent::new(&shape, &strides, item).ok_or_else(unreasonable)?;
    tensor.show(extent.lowest, extent.len().ok_or_else(unreasonable)?)?;
    let view = interpreter.memory.show(py, Arc::new(tensor))?;
    let parts = (view, code, bits, PyTuple::new(py, shape)?, PyTuple::new(py, strides)?);
    parts.into_pyobject(py).map(Bound::into_any)
}

fn unreasonable() -> PyErr {
    PyBufferError::new_err("its shape and strides are none that memory has")
}

/// `to_dlpack(data, code, bits, shape, strides, versioned)`: a capsule with these numbers of `data`, which it keeps.
/// The strides are in bytes, and the data begins at the lowest address. Only versioned capsules can tell that
/// nobody may write there.
pub fn lend<'py>(
    _: &'static Interpreter,
    py: Python<'py>,
    arguments: &[Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let [data, code, bits, shape, strides, versioned] = arguments else {
        return Err(PyTypeError::new_err("to_dlpack takes six arguments"));
    };
    let data_type = DataType { code: code.extract()?, bits: bits.extract()?, lanes: 1 };
    let (shape, mut strides): (Vec<i64>, Vec<i64>) = (shape.extract()?, strides.extract()?);
    let item = i64::from(data_type.bits / 8).max(1);
    let whole = View::of(data).ok_or_else(|| PyTypeError::new_err("expected a contiguous memoryview"))?;
    let fits = |extent: &Extent| {
        shape.len() == strides.len()
            && shape.len() <= MAX_AXES
            && extent.len().is_some_and(|len| len <= whole.as_slice().len())
    };
    let extent = Extent::new(&shape, &strides, item)
        .filter(fits)
        .ok_or_else(|| PyValueError::new_err("the shape and the strides are not those of the data"))?;
    // Others count on it that each number lies at a multiple of its size. No numbers lie nowhere.
    if strides.iter().any(|stride| stride % item != 0) {
        return Err(PyBufferError::new_err("the strides are no multiples of the size of an element"));
    }
    let is_aligned = whole.as_slice().as_ptr().addr().is_multiple_of(item as usize);
    let view = if is_aligned || whole.as_slice().is_empty() {
        whole
    } else {
        View::of(&PyByteArray::new(py, whole.as_slice())).expect("bytes that were made here")
    };
    strides.iter_mut().for_each(|stride| *stride /= item);
    let lent = Lent::new(view, -extent.lowest as usize, data_type, shape, strides);
    if versioned.is_truthy()? { lent.into_versioned_capsule(py) } else { lent.into_capsule(py) }
}
