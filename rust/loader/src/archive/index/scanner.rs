//! Reads the headers of one shard, local or remote.

use std::fs::File;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use crate::archive::scan::{Scan, scan};
use crate::archive::tar::FileSource;
use crate::config::StoreConfig;
use crate::error::{Error, FetchError};
use crate::remote::Fetcher;
use crate::shards::{Location, Stamp};

/// A shard that is not a plain local file is downloaded first, one per thread.
#[derive(Debug)]
pub(super) struct Scanner<'opening> {
    config: &'opening StoreConfig,
    cancelled: &'opening AtomicBool,
    /// Opened when the first shard needs it.
    store: OnceLock<Result<Fetcher, FetchError>>,
}

impl<'opening> Scanner<'opening> {
    pub fn new(config: &'opening StoreConfig, cancelled: &'opening AtomicBool) -> Self {
        Self { config, cancelled, store: OnceLock::new() }
    }

    pub fn scan_shard(&self, location: &Location) -> Result<(Stamp, Scan), Error> {
        let (file, stamp) = match location.plain_file() {
            Some(path) => Stamp::open(path)
                .map_err(|source| Error::Open { shard: location.to_string(), source })?,
            None => self.fetch(location)?,
        };
        let damaged = |offset, source| Error::Tar { shard: location.to_string(), offset, source };
        let source = FileSource::new(&file).map_err(|error| damaged(0, error.into()))?;
        let scan = scan(source, self.config.require_archive_end)
            .map_err(|damage| damaged(damage.at, damage.error))?;
        Ok((stamp, scan))
    }

    fn fetch(&self, location: &Location) -> Result<(File, Stamp), Error> {
        let store = self.store.get_or_init(|| Fetcher::open(self.config));
        let store = store.as_ref().map_err(Clone::clone)?;
        let fetched = store.fetch(location, self.cancelled)?;
        Ok((fetched.file, fetched.stamp))
    }
}
