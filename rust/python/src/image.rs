//! Decoded images, and the grids of their patches.

use std::cell::RefCell;
use std::num::NonZeroU32;

use numpy::{PyArray1, PyArray3, PyArrayMethods};
use prolip_image::{self as image, Decoder, Rgb8};
use prolip_loader::config::MAX_PIXELS;
use prolip_loader::image::check_level;
use pyo3::prelude::*;

use crate::error::{config_error, decode_error};

/// Return the pixels of an encoded image, uint8 `[H, W, 3]`, as PIL's `convert("RGB")` gives them.
#[pyfunction]
pub fn decode<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyArray3<u8>>> {
    thread_local! {
        /// Keeps the memory for all but the pixels.
        static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new(MAX_PIXELS));
    }
    check_level().map_err(config_error)?;
    let mut image = Rgb8::default();
    let decode = || DECODER.with_borrow_mut(|decoder| decoder.decode(data, &mut image));
    py.detach(decode).map_err(decode_error)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    PyArray1::from_vec(py, image.into_pixels()).reshape([height, width, 3])
}

/// Return the rows and columns of patches that an image of this size gets in `seq_len` patches.
#[pyfunction]
pub fn grid_of(
    height: NonZeroU32,
    width: NonZeroU32,
    patch_size: NonZeroU32,
    seq_len: NonZeroU32,
) -> (u32, u32) {
    image::grid_of(height.get(), width.get(), patch_size.get(), seq_len.get())
}
