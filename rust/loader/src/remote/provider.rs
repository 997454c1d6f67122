//! The interface between a run, which needs shards, and whatever fetches them.

use std::fs::File;
use std::sync::Arc;

use crate::error::{Error, FetchError};
use crate::shards::Regions;

#[derive(Debug, Clone)]
pub struct ReadyShard {
    pub file: Arc<File>,
    /// Its samples, unless the index has them.
    pub regions: Option<Arc<Regions>>,
}

/// Makes shards readable, by their index in the list. A run over plain local files needs no provider.
///
/// All threads of the run call it, [`Self::get`] also at the same time, and never while they hold a lock that `wake` needs. So
/// any of these methods may call `wake`.
pub trait ShardProvider: Send + Sync {
    fn request(&self, shards: &[u32]);
    /// Whether the shard can be read now. A shard that failed is ready too: reading it returns the error.
    fn is_ready(&self, shard: u32) -> bool;
    /// Its number of samples once known, for a shard whose length was unknown at opening.
    fn length(&self, shard: u32) -> Option<Result<u64, Error>>;
    /// The fetched shard. `None` for a plain local file, which is opened by its path.
    fn get(&self, shard: u32) -> Result<Option<ReadyShard>, FetchError>;
    fn release(&self, shard: u32);
    /// Sets a function to call whenever an answer may have changed.
    fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>);
    fn close(&self);
}
