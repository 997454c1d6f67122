//! The headers of a shard, wherever it lies.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use super::{Scan, Stamp, scan, scan_shard, stamp_of};
use crate::config::StoreConfig;
use crate::error::Error;
use crate::location::Location;
use crate::store::{FetchError, Store};
use crate::tar::FileSource;

/// Reads headers; what lies elsewhere is brought here for it, one shard a thread.
#[derive(Debug)]
pub(super) struct Scanner<'opening> {
    config: &'opening StoreConfig,
    cancelled: &'opening AtomicBool,
    /// Set up for the first shard that needs it.
    store: OnceLock<Result<Store, FetchError>>,
}

impl<'opening> Scanner<'opening> {
    pub fn new(config: &'opening StoreConfig, cancelled: &'opening AtomicBool) -> Self {
        Self {
            config,
            cancelled,
            store: OnceLock::new(),
        }
    }

    /// What tells that the shard is this one, and its samples.
    pub fn look(&self, location: &Location) -> Result<(Stamp, Scan), Error> {
        if let Location::File(_) = location {
            // Before the headers: a shard that changes meanwhile is then another one later.
            let stamp = stamp_of(location)?;
            return Ok((stamp, scan_shard(location)?));
        }
        let store = self.store.get_or_init(|| Store::open(self.config));
        let store = store.as_ref().map_err(Clone::clone)?;
        let fetched = store.fetch(location, self.cancelled)?;
        let damaged = |offset, source| Error::Tar {
            shard: location.clone(),
            offset,
            source,
        };
        let source = FileSource::new(&fetched.file).map_err(|error| damaged(0, error.into()))?;
        let scan = scan(source).map_err(|damage| damaged(damage.at, damage.error))?;
        Ok((Stamp::from(&fetched.identity), scan))
    }
}
