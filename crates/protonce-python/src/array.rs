//! Arrays across the border to Python, without a copy.
//!
//! Out: an [`Array`] owns memory of ours, or a share in it, and speaks the two protocols by which
//! others take it: NumPy's array interface, and DLPack, which PyTorch, JAX and others have in common.
//! In: the values of a NumPy array, borrowed for as long as a reference to it is held.
//!
//! Why not the buffer protocol: it is in Python's stable interface only since 3.11.

use std::any::Any;
use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::failure::Failure;

/// What an array can consist of.
pub trait Element: Copy + Send + Sync + 'static {
    /// Its name in NumPy's array interface.
    const NAME: &'static str;
    /// Its kind in DLPack.
    const DLPACK: u8;
}

// The names say the byte order, which is that of the machines there are wheels for.
impl Element for f32 {
    const NAME: &'static str = "<f4";
    const DLPACK: u8 = 2;
}

impl Element for i64 {
    const NAME: &'static str = "<i8";
    const DLPACK: u8 = 0;
}

impl Element for u8 {
    const NAME: &'static str = "|u1";
    const DLPACK: u8 = 1;
}

/// Memory that NumPy, PyTorch and others use without a copy: C-contiguous, writable, on the CPU.
#[pyclass(frozen, module = "protonce._core")]
pub struct Array {
    /// Where the values begin. A number, since it is only ever handed on.
    address: usize,
    shape: Vec<i64>,
    name: &'static str,
    dlpack: DataType,
    /// Keeps the memory.
    owner: Arc<dyn Any + Send + Sync>,
}

impl Array {
    /// An array of `values`.
    ///
    /// # Panics
    /// When there are not as many as `shape` says.
    pub fn new<T: Element>(mut values: Vec<T>, shape: &[usize]) -> Array {
        let (address, length) = (values.as_mut_ptr() as usize, values.len());
        Array::within::<T>(address, length, shape, Arc::new(values))
    }

    /// An array of the `length` values from `address` on, which nobody but arrays uses as long as there
    /// is the `owner`.
    ///
    /// # Panics
    /// When there are not as many as `shape` says.
    pub fn within<T: Element>(
        address: usize,
        length: usize,
        shape: &[usize],
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Array {
        assert_eq!(length, shape.iter().product::<usize>(), "an array of another shape");
        Array {
            address,
            shape: shape.iter().map(|&length| length as i64).collect(),
            name: T::NAME,
            dlpack: DataType { code: T::DLPACK, bits: 8 * size_of::<T>() as u8, lanes: 1 },
            owner,
        }
    }

    /// What DLPack calls a tensor, and what it points to.
    fn tensor(&self) -> (Tensor, Kept) {
        let mut strides = vec![1; self.shape.len()];
        for axis in (1..strides.len()).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis].max(1);
        }
        let mut kept = Kept { shape: self.shape.clone(), strides, _owner: Arc::clone(&self.owner) };
        let tensor = Tensor {
            data: self.address as *mut c_void,
            device: Device { kind: CPU, number: 0 },
            dimensions: self.shape.len() as i32,
            data_type: self.dlpack,
            shape: kept.shape.as_mut_ptr(),
            strides: kept.strides.as_mut_ptr(),
            byte_offset: 0,
        };
        (tensor, kept)
    }
}

#[pymethods]
impl Array {
    /// Lengths of the axes.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// What NumPy looks for.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("typestr", self.name)?;
        interface.set_item("shape", self.shape(py)?)?;
        interface.set_item("data", (self.address, false))?;
        Ok(interface)
    }

    /// What PyTorch and other libraries look for.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // There is none on the CPU.
        drop(stream);
        if dl_device.is_some_and(|device| device != (CPU, 0)) || copy == Some(true) {
            let sentence = "this memory is on the CPU and can be shared, not copied: leave out \
                            dl_device and copy";
            return Err(PyBufferError::new_err(sentence));
        }
        let (tensor, kept) = self.tensor();
        match max_version {
            Some((major, _)) if major >= 1 => Versioned::capsule(py, tensor, kept),
            _ => Unversioned::capsule(py, tensor, kept),
        }
    }

    /// Where the memory is: on the CPU.
    fn __dlpack_device__(&self) -> (i32, i32) {
        (CPU, 0)
    }
}

/// DLPack's number of the CPU.
const CPU: i32 = 1;

// The structs of dlpack.h, version 1.0.

#[repr(C)]
#[derive(Clone, Copy)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct Device {
    kind: i32,
    number: i32,
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    dimensions: i32,
    data_type: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// What a [`Tensor`] points to. It follows the fields that are DLPack's own, where nobody else looks.
struct Kept {
    shape: Vec<i64>,
    strides: Vec<i64>,
    _owner: Arc<dyn Any + Send + Sync>,
}

/// `DLManagedTensor`, the form without a version. NumPy takes it for read-only.
#[repr(C)]
struct Unversioned {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Unversioned)>,
    _kept: Kept,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    version: [u32; 2],
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: Tensor,
    _kept: Kept,
}

impl Unversioned {
    const NAME: &'static CStr = c"dltensor";

    fn capsule(py: Python<'_>, tensor: Tensor, kept: Kept) -> PyResult<Bound<'_, PyAny>> {
        let deleter: unsafe extern "C" fn(*mut Unversioned) = delete;
        let context = std::ptr::null_mut();
        let managed = Unversioned { tensor, context, deleter: Some(deleter), _kept: kept };
        capsule(py, Box::new(managed), Unversioned::NAME, Unversioned::destroy)
    }

    unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
        // SAFETY: Python calls this with the capsule that `capsule` made for this type and name.
        unsafe { delete_unused::<Unversioned>(capsule, Unversioned::NAME) };
    }
}

impl Versioned {
    const NAME: &'static CStr = c"dltensor_versioned";

    fn capsule(py: Python<'_>, tensor: Tensor, kept: Kept) -> PyResult<Bound<'_, PyAny>> {
        let deleter: unsafe extern "C" fn(*mut Versioned) = delete;
        let context = std::ptr::null_mut();
        let managed = Versioned {
            version: [1, 0],
            context,
            deleter: Some(deleter),
            flags: 0,
            tensor,
            _kept: kept,
        };
        capsule(py, Box::new(managed), Versioned::NAME, Versioned::destroy)
    }

    unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
        // SAFETY: Python calls this with the capsule that `capsule` made for this type and name.
        unsafe { delete_unused::<Versioned>(capsule, Versioned::NAME) };
    }
}

/// Frees a tensor that was handed out in a box.
///
/// # Safety
/// `managed` comes from `Box::into_raw` and is not used afterwards.
unsafe extern "C" fn delete<M>(managed: *mut M) {
    // SAFETY: as asked for above.
    drop(unsafe { Box::from_raw(managed) });
}

/// A capsule of `managed`, which whoever takes it frees by its deleter, and `destroy` otherwise.
fn capsule<'py, M>(
    py: Python<'py>,
    managed: Box<M>,
    name: &'static CStr,
    destroy: unsafe extern "C" fn(*mut ffi::PyObject),
) -> PyResult<Bound<'py, PyAny>> {
    let managed = Box::into_raw(managed);
    // SAFETY: the pointer is not null, and the name lives as long as the program. A new reference
    // comes back, or null with an exception set.
    let capsule = unsafe {
        let capsule = ffi::PyCapsule_New(managed.cast(), name.as_ptr(), Some(destroy));
        Bound::from_owned_ptr_or_err(py, capsule)
    };
    if capsule.is_err() {
        // SAFETY: it was made above, and no capsule has it.
        drop(unsafe { Box::from_raw(managed) });
    }
    capsule
}

/// Frees the tensor in a `capsule` that nobody has taken; whoever takes one renames it.
///
/// # Safety
/// `capsule` is a capsule; if it has the `name`, it holds a pointer from `Box::<M>::into_raw` that was
/// not freed.
unsafe fn delete_unused<M>(capsule: *mut ffi::PyObject, name: &CStr) {
    // SAFETY: the functions only look at the capsule; its pointer is owned, as asked for above.
    unsafe {
        let valid: c_int = ffi::PyCapsule_IsValid(capsule, name.as_ptr());
        if valid == 1 {
            delete::<M>(ffi::PyCapsule_GetPointer(capsule, name.as_ptr()).cast());
        }
    }
}

/// The values and the shape of a C-contiguous NumPy `array`, which a reference keeps alive.
///
/// # Errors
/// When it is no such array, or of another type.
pub fn values<'a, T: Element>(
    array: &'a Bound<'_, PyAny>,
) -> Result<(&'a [T], Vec<usize>), Failure> {
    let interface = array.getattr("__array_interface__")?;
    let name: String = interface.get_item("typestr")?.extract()?;
    let contiguous = interface.get_item("strides")?.is_none();
    if name != T::NAME || !contiguous {
        let layout = if contiguous { "" } else { " that is not C-contiguous" };
        let expected = T::NAME;
        let sentence =
            format!("an array of {name}{layout}: expected a C-contiguous one of {expected}");
        return Err(Failure::Argument(sentence));
    }
    let shape: Vec<usize> = interface.get_item("shape")?.extract()?;
    let (address, _read_only): (usize, bool) = interface.get_item("data")?.extract()?;
    let length = shape.iter().product();
    if length == 0 {
        return Ok((&[], shape));
    }
    // SAFETY: NumPy promises so many values of this type from `address` on, one after the other, for
    // as long as the array lives, and `array` is a reference to it. NumPy refuses to resize an array
    // that others refer to. That no other Python thread writes there meanwhile can be asked of callers
    // only, as with every function of NumPy that releases the interpreter's lock.
    Ok((unsafe { std::slice::from_raw_parts(address as *const T, length) }, shape))
}

/// The same of an array of two axes, with the length of its rows.
///
/// # Errors
/// As [`values`]; and when it has other axes.
pub fn rows<'a, T: Element>(array: &'a Bound<'_, PyAny>) -> Result<(&'a [T], usize), Failure> {
    let (values, shape) = values(array)?;
    match shape[..] {
        [_, dim] => Ok((values, dim)),
        _ => {
            let sentence = format!("an array of shape {shape:?}: expected rows and columns");
            Err(Failure::Argument(sentence))
        }
    }
}
