//! Images of a list as a model takes them.

use std::num::NonZeroU16;
use std::path::PathBuf;

use numpy::{
    PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray3, PyUntypedArrayMethods,
};
use prolip_image::{DecodeError, Fit, Form, Preparation, Source, ValueTable, prepare};
use prolip_loader::error::ConfigError;
use prolip_loader::image::check_level;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::config::read;
use crate::error::{config_error, decode_error};

#[derive(FromPyObject)]
pub enum Image<'py> {
    Pixels(PyReadonlyArray3<'py, u8>, u32),
    Bytes(PyBackedBytes),
    Path(PathBuf),
}

impl Image<'_> {
    fn source(&self) -> PyResult<Source<'_>> {
        Ok(match self {
            Self::Pixels(array, orientation) => {
                let &[height, width, 3] = array.shape() else {
                    return Err(PyValueError::new_err("an array must be uint8 [H, W, 3]"));
                };
                let (pixels, size) = (array.as_slice()?, [width as u32, height as u32]);
                Source::Pixels { pixels, size, orientation: *orientation }
            }
            Self::Bytes(bytes) => Source::Bytes(bytes),
            Self::Path(path) => Source::Path(path),
        })
    }
}

type Preprocessed<'py> = (
    Bound<'py, PyArray1<u8>>,
    Bound<'py, PyArray2<i32>>,
    Bound<'py, PyArray2<i32>>,
    Vec<(usize, bool, String)>,
);

/// Return images as a model takes them: their bytes one after another; width and height of each source and its rows and columns
/// of patches, int32 `[N, 2]`; and which could not be read, whether another program may, and the reasons.
///
/// `size` is height and width, or with `native` the side of a patch and the maximum number of patches. Without a table, uint8
/// `[3, 256, width]`, an image is `[H, W, 3]`, with one `[3, H, W]`; with `native` both are `[L, P * P * 3]`, 0 where there is
/// no patch. Pixels come with the orientation that EXIF says.
#[expect(clippy::too_many_arguments, reason = "the last three are keywords in Python")]
#[pyfunction]
#[pyo3(signature = (images, fit, size, table = None, *, native = false, turned = None, threads = 1))]
pub fn preprocess<'py>(
    py: Python<'py>,
    images: Vec<Image<'py>>,
    fit: &Bound<'py, PyAny>,
    size: (NonZeroU16, NonZeroU16),
    table: Option<PyReadonlyArray3<'py, u8>>,
    native: bool,
    turned: Option<bool>,
    threads: usize,
) -> PyResult<Preprocessed<'py>> {
    check_level().map_err(config_error)?;
    let table = table.map(|table| Ok::<_, PyErr>(ValueTable::new(table.as_slice()?.to_vec())));
    let [first, second] = [size.0, size.1].map(|side| u32::from(side.get()));
    let (form, cells) =
        if native { (Form::Native(first), second) } else { (Form::Fixed([first, second]), 1) };
    let (fit, table) = (read("fit", fit)?, table.transpose()?);
    let how = Preparation { form, fit, turned, table, planes: !native };
    let sources = images.iter().map(Image::source).collect::<PyResult<Vec<_>>>()?;
    let length = sources.len() * cells as usize * how.cell_bytes();
    // NumPy asks for huge pages. With others, the first touch of a long batch takes as long as resizing.
    let values = PyArray1::zeros(py, length, false);
    let mut writable = values.readwrite();
    let out = writable.as_slice_mut()?;
    let results = py.detach(|| prepare(&sources, &how, threads, out));
    drop(writable);
    let (mut sizes, mut grids, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (place, result) in results.into_iter().enumerate() {
        let done = result.unwrap_or_else(|error| {
            let other =
                matches!(error, DecodeError::Convertible(_) | DecodeError::UnknownFormat { .. });
            failed.push((place, other, error.to_string()));
            Default::default()
        });
        sizes.extend(done.size.map(|side| side as i32));
        grids.extend(done.grid.map(|side| side as i32));
    }
    let pairs = |sides| PyArray1::from_vec(py, sides).reshape([images.len(), 2]);
    Ok((values, pairs(sizes)?, pairs(grids)?, failed))
}

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
    check_level().map_err(config_error)?;
    let (form, fit) = (Form::Fixed([size; 2]), Fit::default());
    let how = Preparation { form, fit, turned: None, table: None, planes: false };
    let mut pixels = vec![0; how.cell_bytes()];
    let results = py.detach(|| prepare(&[Source::Bytes(data)], &how, 1, &mut pixels));
    results.into_iter().collect::<Result<Vec<_>, _>>().map_err(decode_error)?;
    PyArray1::from_vec(py, pixels).reshape([size as usize, size as usize, 3])
}
