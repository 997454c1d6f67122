//! Single images: decoding, and the evaluation transform.

use std::cell::RefCell;
use std::num::NonZeroU32;

use numpy::{PyArray1, PyArray3, PyArrayMethods};
use prolip_image::{self as image, CropBox, Decoder, Filter, Fit, Rgb8, Scratch};
use prolip_loader::config::MAX_PIXELS;
use prolip_loader::error::ConfigError;
use prolip_loader::image::check_level;
use pyo3::prelude::*;

use crate::config::read;
use crate::error::{config_error, decode_error};

/// Return the evaluation transform of an encoded image, uint8 `[size, size, 3]`, as the loader computes it.
#[pyfunction]
pub fn preprocess_image<'py>(
    py: Python<'py>,
    data: &[u8],
    size: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let size: u32 = read("size", size)?;
    if !(1..=16_384).contains(&size) {
        let rule = "must be between 1 and 16384";
        return Err(config_error(ConfigError::new("size", size, rule)));
    }
    let pixels = py.detach(|| {
        let image = decoded(data)?;
        let mut pixels = vec![0; size as usize * size as usize * 3];
        Fit::default().apply(&image, [size; 2], &mut Scratch::default(), &mut pixels);
        Ok::<_, PyErr>(pixels)
    })?;
    to_array(py, pixels, size as usize, size as usize)
}

/// Return the pixels of an encoded image, uint8 `[H, W, 3]`, as PIL's `convert("RGB")` gives them.
#[pyfunction]
pub fn decode<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let image = py.detach(|| decoded(data))?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    to_array(py, image.into_pixels(), height, width)
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

/// Decodes an encoded image. Each thread keeps its decoder, and so the memory for all but the pixels.
fn decoded(data: &[u8]) -> PyResult<Rgb8> {
    thread_local! {
        static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new(MAX_PIXELS));
    }
    check_level().map_err(config_error)?;
    let mut image = Rgb8::default();
    let decoded = DECODER.with_borrow_mut(|decoder| decoder.decode(data, &mut image));
    decoded.map_err(decode_error)?;
    Ok(image)
}

/// A part of an image, resized to a width and height.
pub fn resized<'py>(
    py: Python<'py>,
    image: &Rgb8,
    part: CropBox,
    filter: Filter,
    size: [u32; 2],
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let [columns, rows] = size.map(|side| side as usize);
    let mut pixels = vec![0; columns * rows * 3];
    let scratch = &mut Scratch::default();
    py.detach(|| image::resize_box(image, part, filter, size, scratch, &mut pixels));
    to_array(py, pixels, rows, columns)
}

/// Packed RGB pixels as an array `[height, width, 3]`.
pub fn to_array(
    py: Python<'_>,
    pixels: Vec<u8>,
    height: usize,
    width: usize,
) -> PyResult<Bound<'_, PyArray3<u8>>> {
    PyArray1::from_vec(py, pixels).reshape([height, width, 3])
}
