//! The headers of a shard, wherever it lies.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use crate::archive::scan::{Scan, scan};
use crate::archive::tar::FileSource;
use crate::config::StoreConfig;
use crate::error::{Error, FetchError};
use crate::remote::Store;
use crate::shards::{Location, Stamp};

/// Reads headers; what is no plain local file is brought here for it, one shard a thread.
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
    ///
    /// # Errors
    /// The shard cannot be opened or is no archive; the error says where.
    pub fn look(&self, location: &Location) -> Result<(Stamp, Scan), Error> {
        let (file, stamp) = match location.plain_file() {
            Some(path) => open(path).map_err(|source| Error::Open {
                shard: location.to_string(),
                source,
            })?,
            None => self.fetch(location)?,
        };
        let damaged = |offset, source| Error::Tar {
            shard: location.to_string(),
            offset,
            source,
        };
        let source = FileSource::new(&file).map_err(|error| damaged(0, error.into()))?;
        let scan = scan(source).map_err(|damage| damaged(damage.at, damage.error))?;
        Ok((stamp, scan))
    }

    fn fetch(&self, location: &Location) -> Result<(File, Stamp), Error> {
        let store = self.store.get_or_init(|| Store::open(self.config));
        let store = store.as_ref().map_err(Clone::clone)?;
        let fetched = store.fetch(location, self.cancelled)?;
        Ok((fetched.file, fetched.stamp))
    }
}

/// A file and its stamp, which is of before its headers are read: a shard that changes meanwhile is another one later.
fn open(path: &Path) -> io::Result<(File, Stamp)> {
    let file = File::open(path)?;
    let stamp = Stamp::of_file(&file.metadata()?);
    Ok((file, stamp))
}
