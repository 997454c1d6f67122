//! The loader's masking rule with draws that come from outside, for comparison.

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use prolip_loader::text::mask::{self, Padding};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The first `num_masked` rows of ids, int32 `[M, L]`, with each token replaced by `mask_id` whose draw is below `prob`.
///
/// Padding, wherever it stands, is left alone, and its draws are not looked at. `draws` is `[M, L]`.
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
    let (rows, length) = (ids.shape()[0], ids.shape()[1]);
    if num_masked > rows {
        return Err(PyValueError::new_err(format!(
            "num_masked is {num_masked}: it must not be above the {rows} rows of ids"
        )));
    }
    if draws.shape() != [num_masked, length] {
        return Err(PyValueError::new_err(format!(
            "draws has shape {:?}: it must be [{num_masked}, {length}]",
            draws.shape()
        )));
    }
    let padding = Padding {
        id: pad_id,
        left: false,
        in_text: false,
    };
    let mut masked: Vec<i32> = ids
        .as_array()
        .iter()
        .copied()
        .take(num_masked * length)
        .collect();
    let draws = draws.as_array();
    for row in 0..num_masked {
        let tokens = &mut masked[row * length..][..length];
        mask::mask_tokens(tokens, padding, mask_id, prob, |place| draws[[row, place]]);
    }
    PyArray1::from_vec(py, masked).reshape([num_masked, length])
}
