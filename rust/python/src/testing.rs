//! `prolip._core.testing`: single kernels, for tests that compare them with Pillow, torchvision and the reference implementation.

use numpy::{
    PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray2, PyReadonlyArray3,
    PyUntypedArrayMethods,
};
use prolip_image::{CropBox, JitterDraw, Rgb8, Scratch, resize_box};
use prolip_loader::text::mask::{self, Padding};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::config::read;

/// Return a part of an image, (x, y, width, height), resized by one of Pillow's filters.
#[pyfunction]
#[pyo3(signature = (image, r#box, width, height, filter = None))]
#[pyo3(name = "resize_box")]
pub fn resize<'py>(
    py: Python<'py>,
    image: PyReadonlyArray3<'py, u8>,
    r#box: (u32, u32, u32, u32),
    width: u32,
    height: u32,
    filter: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let decoded = to_image(&image)?;
    let crop = CropBox { x: r#box.0, y: r#box.1, width: r#box.2, height: r#box.3 };
    let filter = filter.map(|filter| read("filter", filter)).transpose()?.unwrap_or_default();
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let scratch = &mut Scratch::default();
    py.detach(|| resize_box(&decoded, crop, filter, [width, height], scratch, &mut pixels));
    to_array(py, pixels, width, height)
}

/// Return an image after colour jitter with these factors; None leaves one out.
///
/// `order` is the order of the steps: 0 brightness, 1 contrast, 2 saturation, 3 hue.
#[pyfunction]
pub fn colour_jitter<'py>(
    py: Python<'py>,
    image: PyReadonlyArray3<'py, u8>,
    brightness: Option<f32>,
    contrast: Option<f32>,
    saturation: Option<f32>,
    hue: Option<f32>,
    order: [u8; 4],
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let jitter = JitterDraw { brightness, contrast, saturation, hue, order };
    changed(py, &image, |pixels| prolip_image::colour_jitter(pixels, &jitter))
}

/// Return an image in grey, with three equal channels.
#[pyfunction]
pub fn gray<'py>(
    py: Python<'py>,
    image: PyReadonlyArray3<'py, u8>,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    changed(py, &image, prolip_image::gray)
}

/// Return the first `num_masked` rows of ids, int32 `[M, L]`, with each token replaced by `mask_id` whose draw is below `prob`.
///
/// `draws` has shape `[M, L]`. Padding is left alone, and its draws are ignored.
#[pyfunction]
pub fn mask_tokens<'py>(
    py: Python<'py>,
    ids: PyReadonlyArray2<'py, i32>,
    draws: PyReadonlyArray2<'py, f64>,
    num_masked: usize,
    prob: f64,
    mask_id: i32,
    pad_id: i32,
) -> PyResult<Bound<'py, PyArray2<i32>>> {
    let length = ids.shape()[1];
    let padding = Padding { id: pad_id, left: false, in_text: false };
    let mut masked: Vec<i32> = ids.as_array().iter().copied().take(num_masked * length).collect();
    let draws = draws.as_array();
    for row in 0..num_masked {
        let tokens = &mut masked[row * length..][..length];
        mask::mask_tokens(tokens, padding, mask_id, prob, |place| draws[[row, place]]);
    }
    PyArray1::from_vec(py, masked).reshape([num_masked, length])
}

fn changed<'py>(
    py: Python<'py>,
    image: &PyReadonlyArray3<'py, u8>,
    change: impl FnOnce(&mut [u8]) + Send,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let decoded = to_image(image)?;
    let mut pixels = decoded.pixels().to_vec();
    py.detach(|| change(&mut pixels));
    to_array(py, pixels, decoded.width(), decoded.height())
}

fn to_image(image: &PyReadonlyArray3<'_, u8>) -> PyResult<Rgb8> {
    let pixels = image.as_array().iter().copied().collect();
    let shape = image.shape();
    Rgb8::from_pixels(shape[1] as u32, shape[0] as u32, pixels)
        .ok_or_else(|| PyValueError::new_err("image: must be [H, W, 3]"))
}

fn to_array(
    py: Python<'_>,
    pixels: Vec<u8>,
    width: u32,
    height: u32,
) -> PyResult<Bound<'_, PyArray3<u8>>> {
    PyArray1::from_vec(py, pixels).reshape([height as usize, width as usize, 3])
}
