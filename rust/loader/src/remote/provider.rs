//! Where a run's shards come from: what is said about them between the schedule of the batches and whatever fetches them.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use crate::error::{Error, FetchError};
use crate::shards::Regions;

/// A shard that was brought here. Its bytes stay on the disk as long as anybody holds the file.
#[derive(Debug, Clone)]
pub struct ReadyShard {
    /// The plain archive.
    pub file: Arc<File>,
    /// Where its samples lie, unless an index says it.
    pub regions: Option<Arc<Regions>>,
}

/// Brings shards to where they can be read. Shards are named by their places in the list.
///
/// Calls come from any of the run's threads, one at a time, and never while a lock is held that `wake` needs: an
/// implementation may call it from within any of these.
pub trait ShardProvider: Send + Sync + fmt::Debug {
    /// These are used next, in order of first use; called again with further ones. Never blocks.
    fn request(&self, shards: &[u32]);
    /// Whether the shard can be read now. One that is missing for good is ready: reading it gives the error.
    fn is_ready(&self, shard: u32) -> bool;
    /// Its number of samples, once that is known; asked where it was not known at opening.
    fn length(&self, shard: u32) -> Option<Result<u64, Error>>;
    /// A shard that was brought here; nothing where it is a plain local file, which is opened by its path.
    ///
    /// # Errors
    /// Why it is missing.
    fn get(&self, shard: u32) -> Result<Option<ReadyShard>, FetchError> {
        let _ = shard;
        Ok(None)
    }
    /// No batch needs the shard until it is announced again.
    fn release(&self, shard: u32);
    /// `wake` is to be called whenever an answer may have changed.
    fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>);
    /// Ends its threads and removes its files.
    fn close(&self);
    /// Whether every shard is always there and of known length, so that nothing else is ever asked.
    fn is_local(&self) -> bool {
        false
    }
}

/// Plain local files: always there, of known length.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalFiles;

impl ShardProvider for LocalFiles {
    fn request(&self, _: &[u32]) {}

    fn is_ready(&self, _: u32) -> bool {
        true
    }

    fn length(&self, _: u32) -> Option<Result<u64, Error>> {
        None
    }

    fn release(&self, _: u32) {}

    fn on_change(&self, _: Box<dyn Fn() + Send + Sync>) {}

    fn close(&self) {}

    fn is_local(&self) -> bool {
        true
    }
}
