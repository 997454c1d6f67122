//! Writes and checks index files.

use std::path::PathBuf;

use prolip_loader::archive::index;
use prolip_loader::config::OnMissingShard;
use prolip_loader::remote::settle;
use pyo3::prelude::*;

use crate::config::store_config;
use crate::shards::located;
use crate::wait::interruptible;

/// Read the headers of shards with `threads` threads and write an index. `store` configures remote shards.
///
/// Returns the number of shards, the number of samples, and a sentence per damaged shard.
#[pyfunction]
pub fn write_index(
    py: Python<'_>,
    shards: Vec<String>,
    out: PathBuf,
    threads: usize,
    store: &Bound<'_, PyAny>,
) -> PyResult<(u64, u64, Vec<String>)> {
    let shards = located(&shards, OnMissingShard::Raise)?;
    let store = store_config(store)?;
    let made = interruptible(py, |cancelled| {
        let shards = settle(shards, &store, cancelled)?;
        index::write_index(&shards, &out, threads.max(1), &store, cancelled)
    })?;
    Ok((made.shards, made.samples, made.notes))
}

/// Read the headers of shards again and return a sentence per difference from the index.
#[pyfunction]
pub fn check_index(
    py: Python<'_>,
    shards: Vec<String>,
    index: PathBuf,
    threads: usize,
    store: &Bound<'_, PyAny>,
) -> PyResult<Vec<String>> {
    let shards = located(&shards, OnMissingShard::Skip)?;
    let store = store_config(store)?;
    interruptible(py, |cancelled| {
        let shards = settle(shards, &store, cancelled)?;
        index::check_index(&shards, &index, threads.max(1), &store, cancelled)
    })
}
