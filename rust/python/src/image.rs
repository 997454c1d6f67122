//! Single images: decoding, and the evaluation transform.

use std::cell::RefCell;
use std::num::{NonZeroU16, NonZeroU32};

use numpy::{PyArray1, PyArray3, PyArrayMethods};
use prolip_image::{self as image, CropBox, Decoder, Rgb8, Scratch};
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
        let image = decoded(data, false)?;
        let mut pixels = vec![0; size as usize * size as usize * 3];
        image::evaluate(&image, size, &mut Scratch::default(), &mut pixels);
        Ok::<_, PyErr>(pixels)
    })?;
    to_array(py, pixels, size as usize, size as usize)
}

/// Return the evaluation transform of a native model: uint8 `[H, W, 3]`, whole patches, `seq_len` of them at most.
#[pyfunction]
pub fn preprocess_native<'py>(
    py: Python<'py>,
    data: &[u8],
    patch_size: NonZeroU16,
    seq_len: NonZeroU16,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let image = py.detach(|| decoded(data, true))?;
    let (height, width, patch) = (image.height(), image.width(), patch_size.get().into());
    let (rows, columns) = image::grid_of(height, width, patch, seq_len.get().into());
    resized(py, &image, CropBox::whole(width, height), columns * patch, rows * patch)
}

/// Return the pixels of an encoded image, uint8 `[H, W, 3]`, as PIL's `convert("RGB")` gives them.
#[pyfunction]
pub fn decode<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let image = py.detach(|| decoded(data, false))?;
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

/// Decodes an encoded image, and turns it as its EXIF orientation says if `turned`. Each thread keeps its decoder, and so the memory for all but the pixels.
fn decoded(data: &[u8], turned: bool) -> PyResult<Rgb8> {
    thread_local! {
        static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new(MAX_PIXELS));
    }
    check_level().map_err(config_error)?;
    let mut image = Rgb8::default();
    let decode = if turned { Decoder::decode_turned } else { Decoder::decode_part };
    let decoded =
        DECODER.with_borrow_mut(|decoder| decode(decoder, data, &mut image, CropBox::whole));
    decoded.map_err(decode_error)?;
    Ok(image)
}

/// A part of an image, resized by bicubic interpolation with antialiasing.
pub fn resized<'py>(
    py: Python<'py>,
    image: &Rgb8,
    part: CropBox,
    width: u32,
    height: u32,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let (columns, rows) = (width as usize, height as usize);
    let mut pixels = vec![0; columns * rows * 3];
    let scratch = &mut Scratch::default();
    py.detach(|| image::resize_box(image, part, width, height, scratch, &mut pixels));
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
