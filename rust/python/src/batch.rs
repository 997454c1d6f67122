//! `Batch`: NumPy arrays that are the loader's own memory.
//!
//! The one place of the binding with unsafe code. The arrays' base object owns the memory; when Python has dropped the
//! batch and every view, the base is dropped and the memory goes back to the loader's pool.

use std::ptr::NonNull;

use numpy::ndarray::{ArrayView, Dimension, IntoDimension, Ix, Ix2, Ix3, Ix4};
use numpy::{Element, PyArray, PyArray2, PyArray3, PyArray4};
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{self, Lease, Loader};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

/// An array inside the memory of a batch.
struct Part<T, D> {
    start: NonNull<T>,
    shape: D,
}

impl<T, D: Dimension> Part<T, D> {
    fn new<const N: usize>(memory: &mut Vec<T>, shape: [usize; N]) -> Self
    where
        [Ix; N]: IntoDimension<Dim = D>,
    {
        let shape = shape.into_dimension();
        assert!(
            memory.len() >= shape.size(),
            "the loader made less than it says"
        );
        let start = NonNull::new(memory.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Self { start, shape }
    }
}

/// What every array of a batch has for its base.
#[pyclass(frozen, module = "prolip._core")]
struct BatchMemory {
    images: Part<u8, Ix4>,
    token_ids: Part<i32, Ix3>,
    masked_token_ids: Part<i32, Ix3>,
    kept_patches: Part<i64, Ix2>,
    /// Never touched while the arrays exist; dropped with this.
    _lease: Lease,
}

// SAFETY: the pointers lead into `_lease`, which is Send, stays where it is on the heap, and is reached by nobody else.
unsafe impl Send for BatchMemory {}
// SAFETY: through `&BatchMemory` the pointers are only copied into arrays. What Python does with one array in two threads
// is NumPy's rule for all arrays.
unsafe impl Sync for BatchMemory {}

fn view<'py, T: Element, D: Dimension>(
    memory: &Bound<'py, BatchMemory>,
    part: &Part<T, D>,
) -> Bound<'py, PyArray<T, D>> {
    // SAFETY: `part` lies inside the lease that `memory` owns, initialised and of this shape (`Part::new`); the array holds
    // `memory` alive. No Rust reference into the lease is made after this, so Python may write.
    unsafe {
        let array = ArrayView::from_shape_ptr(part.shape.clone(), part.start.as_ptr());
        PyArray::borrow_from_array(&array, memory.clone().into_any())
    }
}

/// B samples: pictures, ids, masks, keys. Arrays are views of memory that the loader uses again once they are dropped.
#[pyclass(frozen, module = "prolip._core")]
pub struct Batch {
    memory: Py<BatchMemory>,
    masked_rows: usize,
    has_text: bool,
    cursor: Cursor,
    /// The samples' keys.
    #[pyo3(get)]
    keys: Py<PyList>,
    /// The samples' members that are kept, by extension.
    #[pyo3(get)]
    members: Py<PyDict>,
}

impl Batch {
    pub fn new(py: Python<'_>, batch: pipeline::Batch, loader: &Loader) -> PyResult<Self> {
        let pipeline::Batch {
            mut lease,
            samples: _,
            masked_rows,
            cursor,
        } = batch;
        let arrays = &mut lease.memory;
        let keys = PyList::new(py, &arrays.keys)?;
        let members = PyDict::new(py);
        for (place, extension) in loader.config.keep_members.iter().enumerate() {
            let column = arrays.kept.iter().map(|kept| kept.member(place));
            let column = column.map(|member| member.map(|bytes| PyBytes::new(py, bytes)));
            members.set_item(extension, PyList::new(py, column)?)?;
        }
        let (rows, side) = (arrays.keys.len(), loader.config.image_size as usize);
        let slots = loader.config.captions.len();
        let length = loader
            .tokenizer
            .as_ref()
            .map_or(0, |tokenizer| tokenizer.context_length());
        let kept = loader
            .config
            .mask
            .as_ref()
            .map_or(0, |mask| mask.kept_patches());
        let memory = BatchMemory {
            images: Part::new(&mut arrays.images, [rows, side, side, 3]),
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
            keys: keys.unbind(),
            members: members.unbind(),
        })
    }
}

#[pymethods]
impl Batch {
    /// uint8 `[B, H, W, 3]`.
    #[getter]
    fn images<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray4<u8>> {
        view(self.memory.bind(py), &self.memory.get().images)
    }

    /// int32 `[C, B, L]`; C is 0 where there are no captions.
    #[getter]
    fn token_ids<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray3<i32>> {
        view(self.memory.bind(py), &self.memory.get().token_ids)
    }

    /// int32 `[C, M, L]`, the texts of the first M rows, masked; nothing where no row is masked or there are no captions.
    #[getter]
    fn masked_token_ids<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray3<i32>>> {
        let present = self.masked_rows > 0 && self.has_text;
        present.then(|| view(self.memory.bind(py), &self.memory.get().masked_token_ids))
    }

    /// int64 `[M, K]`, sorted indices of the patches that the first M pictures keep; nothing where no row is masked.
    #[getter]
    fn kept_patches<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray2<i64>>> {
        (self.masked_rows > 0).then(|| view(self.memory.bind(py), &self.memory.get().kept_patches))
    }

    /// The epoch that this batch belongs to, from 0.
    #[getter]
    fn epoch(&self) -> u64 {
        self.cursor.epoch
    }

    /// The epoch's legs up to this batch: ranks, samples of a rank's batch, steps.
    #[getter]
    fn legs(&self) -> Vec<(u64, u64, u64)> {
        let legs = self.cursor.legs.iter();
        legs.map(|leg| (leg.world_size, leg.batch_size, leg.steps))
            .collect()
    }
}
