//! The decode-only benchmark, the level of vector instructions, and the levels that benchmarks compare.

use prolip_loader::config::{MAX_PIXELS, OnMissingShard};
use prolip_loader::pipeline;
use pyo3::prelude::*;

use crate::config::store_config;
use crate::error::{config_error, loader_error};
use crate::shards::located;

/// Decode `images` images of the shards with `threads` threads, and return their number and the seconds taken.
///
/// Reading is not timed: the compressed bytes are in memory before the clock starts. Then `loaded` is called.
#[pyfunction]
pub fn decode_only(
    py: Python<'_>,
    shards: Vec<String>,
    images: usize,
    threads: usize,
    store: &Bound<'_, PyAny>,
    loaded: Py<PyAny>,
) -> PyResult<(u64, f64)> {
    let store = store_config(store)?;
    let locations = located(&shards, OnMissingShard::Raise)?;
    let mut called = Ok(());
    let call = || called = Python::attach(|py| loaded.call0(py).map(drop));
    let run = py
        .detach(|| {
            let limit = MAX_PIXELS;
            pipeline::decode_only(&locations, images, threads, limit, &store, call)
        })
        .map_err(|error| loader_error(py, &error))?;
    called?;
    Ok((run.images, run.seconds))
}

/// The name of the vector instructions that the loader's kernels use: the fastest of this processor, or those that
/// `PROLIP_SIMD` names.
#[pyfunction]
pub fn simd_level() -> PyResult<&'static str> {
    prolip_loader::image::check_level().map_err(config_error)
}

/// The names that `PROLIP_SIMD` may have on this processor, slowest first.
#[pyfunction]
pub fn simd_levels() -> Vec<&'static str> {
    prolip_loader::image::level_names()
}
