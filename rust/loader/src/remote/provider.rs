//! What a run needs of whatever fetches its shards.

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

/// Makes shards readable, by their index in the list. A run over plain local files needs none. All threads of the run call it,
/// [`Self::get`] also at the same time, but never with a lock that `wake` needs. So any of these methods may call `wake`.
pub trait ShardProvider: Send + Sync {
    fn request(&self, shards: &[u32]);
    /// Whether the shard can be read now. A failed shard is ready too: reading it returns the error.
    fn is_ready(&self, shard: u32) -> bool;
    /// The number of samples once known, if unknown at opening.
    fn length(&self, shard: u32) -> Option<Result<u64, Error>>;
    /// `None` for a plain local file, which is opened by its path.
    fn get(&self, shard: u32) -> Result<Option<ReadyShard>, FetchError>;
    fn release(&self, shard: u32);
    /// Calls `wake` whenever an answer may have changed.
    fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>);
    fn close(&self);
}
