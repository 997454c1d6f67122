//! `Batch`: NumPy arrays that share the loader's memory.
//!
//! The only unsafe code of the binding. The arrays' base object owns the memory. When Python has dropped the batch and every
//! view, the memory returns to the loader's pool.

use std::ptr::NonNull;

use numpy::ndarray::{ArrayView, Dimension, IntoDimension, Ix2, Ix3, IxDyn};
use numpy::{Element, PyArray, PyArray1, PyArray2, PyArray3, PyArrayDyn, PyArrayMethods};
use prolip_image::{Form, Preparation};
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{self, Dataset, Lease};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

struct Part<T, D> {
    start: NonNull<T>,
    shape: D,
}

impl<T, D: Dimension> Part<T, D> {
    fn new(memory: &mut [T], shape: impl IntoDimension<Dim = D>) -> Self {
        let shape = shape.into_dimension();
        assert!(memory.len() >= shape.size(), "the loader made less than it says");
        let start = NonNull::new(memory.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Self { start, shape }
    }
}

/// The base object of a batch's arrays.
#[pyclass(frozen, module = "prolip._core")]
struct BatchMemory {
    images: Part<u8, IxDyn>,
    patch_coords: Part<i16, Ix3>,
    grids: Part<i32, Ix2>,
    token_ids: Part<i32, Ix3>,
    masked_token_ids: Part<i32, Ix3>,
    kept_patches: Part<i64, Ix2>,
    /// Not touched while the arrays exist; dropped with this object.
    _lease: Lease,
}

// SAFETY: the pointers lead into `_lease`, which is Send, stays in place on the heap, and is reached by nobody else.
unsafe impl Send for BatchMemory {}
// SAFETY: through `&BatchMemory` the pointers are only copied into arrays. Two threads that use one array follow
// NumPy's rules, as for any array.
unsafe impl Sync for BatchMemory {}

fn view<'py, T: Element, D: Dimension>(
    memory: &Bound<'py, BatchMemory>,
    part: &Part<T, D>,
) -> Bound<'py, PyArray<T, D>> {
    // SAFETY: `part` lies inside the lease that `memory` owns, is initialised and has this shape (`Part::new`); the
    // array keeps `memory` alive. No Rust reference into the lease is made after this, so Python may write.
    unsafe {
        let array = ArrayView::from_shape_ptr(part.shape.clone(), part.start.as_ptr());
        PyArray::borrow_from_array(&array, memory.clone().into_any())
    }
}

/// B samples: images, token ids, masks, keys. The arrays are views of memory that the loader reuses once they are
/// dropped.
#[pyclass(frozen, module = "prolip._core")]
pub struct Batch {
    memory: Py<BatchMemory>,
    masked_rows: usize,
    has_text: bool,
    cursor: Cursor,
    /// uint32 `[B]`, the samples' places in their shards.
    #[pyo3(get)]
    rows: Py<PyArray1<u32>>,
    /// int32 `[B, 2]`, width and height of the encoded images; 0 if they were not decoded.
    #[pyo3(get)]
    sizes: Py<PyArray2<i32>>,
    /// The samples' keys.
    #[pyo3(get)]
    keys: Py<PyList>,
    /// The samples' raw members by extension.
    #[pyo3(get)]
    members: Py<PyDict>,
}

impl Batch {
    pub fn new(
        py: Python<'_>,
        batch: pipeline::Batch,
        dataset: &Dataset,
        preparation: &Preparation,
    ) -> PyResult<Self> {
        let pipeline::Batch { mut lease, samples: _, masked_rows, row_patches, cursor } = batch;
        let arrays = &mut lease.arrays;
        let keys = PyList::new(py, &arrays.keys)?;
        let members = PyDict::new(py);
        for (place, extension) in dataset.config.keep_members.iter().enumerate() {
            let column = arrays.raw_members.iter().map(|kept| kept.member(place));
            let column = column.map(|member| member.map(|bytes| PyBytes::new(py, bytes)));
            members.set_item(extension, PyList::new(py, column)?)?;
        }
        let sizes = PyArray1::from_slice(py, arrays.sizes.as_flattened());
        let sizes = sizes.reshape([arrays.sizes.len(), 2])?;
        let places = PyArray1::from_slice(py, &arrays.rows);
        let rows = arrays.keys.len();
        let shape = match preparation.form {
            Form::Native(_) => vec![rows, row_patches, preparation.cell_bytes()],
            Form::Fixed([height, width]) => {
                vec![rows, height as usize, width as usize, 3 * preparation.value_bytes()]
            }
        };
        let (coords, grids) = (&mut arrays.patch_coords, &mut arrays.grids);
        let slots = dataset.config.captions.len();
        let length = dataset.tokenizer.as_ref().map_or(0, |tokenizer| tokenizer.context_length());
        let kept = arrays.kept_patches.len().checked_div(masked_rows).unwrap_or(0);
        let memory = BatchMemory {
            images: Part::new(&mut arrays.images, shape),
            patch_coords: Part::new(coords.as_flattened_mut(), [rows, row_patches, 2]),
            grids: Part::new(grids.as_flattened_mut(), [rows, 2]),
            token_ids: Part::new(&mut arrays.token_ids, [slots, rows, length]),
            masked_token_ids: Part::new(&mut arrays.masked_token_ids, [slots, masked_rows, length]),
            kept_patches: Part::new(&mut arrays.kept_patches, [masked_rows, kept]),
            _lease: lease,
        };
        Ok(Self {
            memory: Py::new(py, memory)?,
            masked_rows,
            has_text: slots > 0,
            cursor,
            rows: places.unbind(),
            sizes: sizes.unbind(),
            keys: keys.unbind(),
            members: members.unbind(),
        })
    }
}

#[pymethods]
impl Batch {
    /// uint8 `[B, H, W, 3]`, or `[B, L, P * P * 3]` for native images. From a table, the bytes of its values.
    #[getter]
    fn images<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<u8>> {
        view(self.memory.bind(py), &self.memory.get().images)
    }

    /// int16 `[B, L, 2]`. L is 1 for square images.
    #[getter]
    fn patch_coords<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray3<i16>> {
        view(self.memory.bind(py), &self.memory.get().patch_coords)
    }

    /// int32 `[B, 2]`, rows and columns of patches.
    #[getter]
    fn grids<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<i32>> {
        view(self.memory.bind(py), &self.memory.get().grids)
    }

    /// int32 `[C, B, L]`. C is 0 if there are no captions.
    #[getter]
    fn token_ids<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray3<i32>> {
        view(self.memory.bind(py), &self.memory.get().token_ids)
    }

    /// int32 `[C, M, L]`, the masked texts of the first M rows. None if no row is masked or there are no captions.
    #[getter]
    fn masked_token_ids<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray3<i32>>> {
        let present = self.masked_rows > 0 && self.has_text;
        present.then(|| view(self.memory.bind(py), &self.memory.get().masked_token_ids))
    }

    /// int64 `[M, K]`, sorted indices of the patches that the first M images keep. None if no row is masked.
    #[getter]
    fn kept_patches<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray2<i64>>> {
        (self.masked_rows > 0).then(|| view(self.memory.bind(py), &self.memory.get().kept_patches))
    }

    /// The batch's epoch, from 0.
    #[getter]
    fn epoch(&self) -> u64 {
        self.cursor.epoch
    }

    /// The epoch's legs up to this batch: world size, batch size per rank, steps.
    #[getter]
    fn legs(&self) -> Vec<(u64, u64, u64)> {
        let legs = self.cursor.legs.iter();
        legs.map(|leg| (leg.world_size, leg.batch_size, leg.steps)).collect()
    }
}

/// Looks up NumPy's functions. Otherwise the first array would, in Python code, and an interrupt there would be a panic.
#[pyfunction]
pub fn load_numpy(py: Python<'_>) {
    drop(PyArray2::<u8>::zeros(py, [0, 0], false));
}
