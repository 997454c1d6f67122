//! Reads the stamps of shards without fetching them, and fetches a single shard.

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::fetcher::{Client, Fetcher};
use super::glob::settle;
use super::retry::{Attempts, Failure, write_failure};
use super::transfer::{Transfer, WHOLE};
use crate::config::StoreConfig;
use crate::error::{Error, FetchError};
use crate::os::is_at;
use crate::shards::{Location, Stamp};

/// Expands globs in object stores, and stamps each shard. Nothing is fetched. The stamp of a command is empty.
pub fn examine(
    shards: Vec<Location>,
    config: &StoreConfig,
    cancelled: &AtomicBool,
) -> Result<Vec<(Location, Stamp)>, Error> {
    let mut store = None;
    let settled = settle(shards, config, cancelled)?.into_iter();
    let stamped = settled.map(|shard| {
        let stamp = match &shard {
            Location::Url(url) => {
                let store = match &store {
                    Some(store) => store,
                    None => store.insert(Fetcher::open(config)?),
                };
                store.wait(store.client.examine(url), &shard, cancelled)?
            }
            _ => Stamp::of(&shard)?,
        };
        Ok((shard, stamp))
    });
    stamped.collect()
}

/// Decompresses it if needed.
pub fn fetch_into(
    shard: &Location,
    path: &Path,
    config: &StoreConfig,
    cancelled: &AtomicBool,
) -> Result<(), FetchError> {
    let mut fetched = Fetcher::open(config)?.fetch(shard, cancelled)?;
    let written = fetched.file.rewind().and_then(|()| {
        if is_at(&fetched.file, path)? {
            // A local file is its own copy, which creating would empty.
            return Ok(0);
        }
        let mut file = File::create(path)?;
        io::copy(&mut fetched.file, &mut file)
    });
    let failed = |error| write_failure(error).at("the file", path).into_error(shard);
    written.map_err(failed).map(drop)
}

impl Client {
    /// From a request for one byte.
    async fn examine(&self, url: &str) -> Result<Stamp, Failure> {
        let source = self.source(url)?;
        let transfer = Transfer { range_bytes: 1, ..self.transfer(&source, &[WHOLE]) };
        let opened = transfer.open(&mut Attempts::new(self.limits.retries)).await?;
        Ok(Stamp::from(&opened.identity))
    }
}
