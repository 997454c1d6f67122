//! Functions on shards without a loader.

use std::path::PathBuf;

use prolip_loader::archive::index::{self, Index, OpenOptions};
use prolip_loader::config::OnMissingShard;
use prolip_loader::error::Error;
use prolip_loader::remote;
use prolip_loader::shards::{Location, Version, expand};
use pyo3::prelude::*;

use crate::config::store_config;
use crate::error::config_error;
use crate::wait::interruptible;

pub fn located(shards: &[String], missing: OnMissingShard) -> PyResult<Vec<Location>> {
    expand(shards, missing).map_err(config_error)
}

/// Return the shards that patterns and lists stand for, as the loader reads them. No server is asked.
///
/// `store` says whether commands may run.
#[pyfunction]
pub fn expand_shards(shards: Vec<String>, store: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let store = store_config(store)?;
    let shards = located(&shards, OnMissingShard::Raise)?;
    remote::check_addresses(&shards, &store).map_err(config_error)?;
    Ok(shards.iter().map(Location::written).collect())
}

/// Return a shard's name without passwords and signatures.
#[pyfunction]
pub fn shown_shard(shard: &str) -> String {
    Location::of(shard).to_string()
}

/// Return the name, size and version of the shards that patterns stand for, including globs in object stores.
///
/// The version is a file's modification time or a server's ETag; None if unknown.
#[pyfunction]
pub fn examine_shards(
    py: Python<'_>,
    shards: Vec<String>,
    store: &Bound<'_, PyAny>,
) -> PyResult<Vec<(String, u64, Option<String>)>> {
    let store = store_config(store)?;
    let shards = located(&shards, OnMissingShard::Raise)?;
    let found = interruptible(py, |cancelled| remote::examine(shards, &store, cancelled))?;
    let examined = found.into_iter().map(|(shard, stamp)| {
        let version = match stamp.version {
            Version::ETag(text) => Some(text.into()),
            Version::Modified(nanoseconds) => Some(nanoseconds.to_string()),
            Version::Unknown => None,
        };
        (shard.written(), stamp.size, version)
    });
    Ok(examined.collect())
}

/// Write a shard to a file, decompressed if it is compressed.
#[pyfunction]
pub fn fetch_shard(
    py: Python<'_>,
    shard: &str,
    out: PathBuf,
    store: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let store = store_config(store)?;
    let shard = vec![Location::of(shard)];
    interruptible(py, |cancelled| {
        for shard in remote::settle(shard, &store, cancelled)? {
            remote::fetch_into(&shard, &out, &store, cancelled)?;
        }
        Ok(())
    })
}

/// Return a fingerprint of a local shard's contents, and the bytes where its samples begin and the last one ends.
#[pyfunction]
pub fn shard_regions(
    py: Python<'_>,
    shard: &str,
    store: &Bound<'_, PyAny>,
) -> PyResult<(String, Vec<u64>)> {
    let store = &store_config(store)?;
    let shard = [Location::of(shard)];
    interruptible(py, |cancelled| {
        let missing = OnMissingShard::Raise;
        let options = OpenOptions { missing, threads: 1, store, cancelled, chosen: &[] };
        let index = Index::scan(&shard, options)?;
        let regions = index.regions(0).map_err(|_| Error::Closed)?;
        let start = |sample| regions.get(sample).map_or(regions.end(), |region| region.start);
        let starts = (0..=regions.len() as u32).map(start);
        Ok((regions.fingerprint().to_string(), starts.collect()))
    })
}

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
        let shards = remote::settle(shards, &store, cancelled)?;
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
        let shards = remote::settle(shards, &store, cancelled)?;
        index::check_index(&shards, &index, threads.max(1), &store, cancelled)
    })
}
