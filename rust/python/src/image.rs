//! The loader's image functions one by one: the evaluation transform for a single picture, and kernels for comparison.

use numpy::{PyArray1, PyArray3, PyArrayMethods, PyReadonlyArray3, PyUntypedArrayMethods};
use prolip_loader::config::MAX_PIXELS;
use prolip_loader::image::augment::{self, JitterDraw, Scratch};
use prolip_loader::image::{CropBox, Decoder, Rgb8};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::decode_error;

/// The pixels of an encoded picture, uint8 `[H, W, 3]`, as PIL's `convert("RGB")` gives them.
#[pyfunction]
pub fn decode_image<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let picture = py.detach(|| decode(data))?;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    to_array(py, picture.pixels().to_vec(), height, width)
}

/// The evaluation transform of an encoded picture, uint8 `[size, size, 3]`: the loader's own, for one picture.
#[pyfunction]
pub fn preprocess_image<'py>(
    py: Python<'py>,
    data: &[u8],
    size: u32,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    check_size("size", size)?;
    let pixels = py.detach(|| {
        let picture = decode(data)?;
        let mut pixels = vec![0; size as usize * size as usize * 3];
        augment::evaluate(&picture, size, &mut Scratch::default(), &mut pixels);
        Ok::<_, PyErr>(pixels)
    })?;
    to_array(py, pixels, size as usize, size as usize)
}

/// A part of a picture, (x, y, width, height), resized by bicubic interpolation with antialias.
#[pyfunction]
pub fn resize_box<'py>(
    py: Python<'py>,
    image: PyReadonlyArray3<'py, u8>,
    r#box: (u32, u32, u32, u32),
    width: u32,
    height: u32,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    check_size("width", width)?;
    check_size("height", height)?;
    let picture = to_picture(&image)?;
    let (x, y, box_width, box_height) = r#box;
    let inside = |start: u32, length: u32, end: u32| {
        length > 0 && u64::from(start) + u64::from(length) <= u64::from(end)
    };
    if !inside(x, box_width, picture.width()) || !inside(y, box_height, picture.height()) {
        return Err(PyValueError::new_err(format!(
            "box is ({x}, {y}, {box_width}, {box_height}): it must lie within {} x {} pixels",
            picture.width(),
            picture.height()
        )));
    }
    let crop = CropBox {
        x,
        y,
        width: box_width,
        height: box_height,
    };
    let mut pixels = vec![0; width as usize * height as usize * 3];
    py.detach(|| {
        augment::resize_box(
            &picture,
            crop,
            width,
            height,
            &mut Scratch::default(),
            &mut pixels,
        )
    });
    to_array(py, pixels, height as usize, width as usize)
}

/// Colour jitter with given factors in a given order: 0 brightness, 1 contrast, 2 saturation, 3 hue; None leaves one out.
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
    let mut sorted = order;
    sorted.sort_unstable();
    if sorted != [0, 1, 2, 3] {
        return Err(PyValueError::new_err(format!(
            "order is {order:?}: it must hold 0, 1, 2 and 3, each once"
        )));
    }
    let jitter = JitterDraw {
        brightness,
        contrast,
        saturation,
        hue,
        order,
    };
    changed(py, &image, |pixels| augment::colour_jitter(pixels, &jitter))
}

/// A picture without colour, three equal channels.
#[pyfunction]
pub fn gray<'py>(
    py: Python<'py>,
    image: PyReadonlyArray3<'py, u8>,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    changed(py, &image, augment::gray)
}

fn decode(data: &[u8]) -> PyResult<Rgb8> {
    let mut picture = Rgb8::default();
    Decoder::new(MAX_PIXELS)
        .decode(data, &mut picture)
        .map_err(|error| decode_error(&error))?;
    Ok(picture)
}

fn changed<'py>(
    py: Python<'py>,
    image: &PyReadonlyArray3<'py, u8>,
    change: impl FnOnce(&mut [u8]) + Send,
) -> PyResult<Bound<'py, PyArray3<u8>>> {
    let picture = to_picture(image)?;
    let mut pixels = picture.pixels().to_vec();
    py.detach(|| change(&mut pixels));
    to_array(
        py,
        pixels,
        picture.height() as usize,
        picture.width() as usize,
    )
}

fn to_picture(image: &PyReadonlyArray3<'_, u8>) -> PyResult<Rgb8> {
    let pixels = image.as_array().iter().copied().collect();
    let shape = image.shape();
    let side = |length: usize| u32::try_from(length).ok().filter(|&length| length > 0);
    let picture = match (side(shape[0]), side(shape[1]), shape[2]) {
        (Some(height), Some(width), 3) => Rgb8::from_pixels(width, height, pixels),
        _ => None,
    };
    picture.ok_or_else(|| {
        PyValueError::new_err(format!(
            "image has shape {shape:?}: it must be [H, W, 3], not empty"
        ))
    })
}

fn to_array(
    py: Python<'_>,
    pixels: Vec<u8>,
    height: usize,
    width: usize,
) -> PyResult<Bound<'_, PyArray3<u8>>> {
    PyArray1::from_vec(py, pixels).reshape([height, width, 3])
}

fn check_size(name: &str, size: u32) -> PyResult<()> {
    if (1..=16_384).contains(&size) {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{name} is {size}: it must be between 1 and 16384"
    )))
}
