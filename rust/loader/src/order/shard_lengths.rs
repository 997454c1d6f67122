//! The numbers of samples in the shards; some are known only after a download.

use crate::error::Error;
use crate::shards::UNKNOWN_LENGTH;

/// A shard that must be available, and its number of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeededShard {
    /// Its place in the list.
    pub shard: u32,
    pub samples: u32,
}

/// An answer never changes.
pub trait ShardLengths {
    /// The length of every shard in the list, or [`UNKNOWN_LENGTH`].
    fn counts(&self) -> &[u32];

    /// The length of a shard that was [`UNKNOWN_LENGTH`]; `None` until the shard has been downloaded.
    fn lookup(&self, shard: u32) -> Option<Result<u32, Error>>;

    /// `None` until it is known.
    fn samples(&self, shard: u32) -> Option<Result<u32, Error>> {
        match self.counts()[shard as usize] {
            UNKNOWN_LENGTH => self.lookup(shard),
            count => Some(Ok(count)),
        }
    }
}

impl ShardLengths for Vec<u32> {
    fn counts(&self) -> &[u32] {
        self
    }

    fn lookup(&self, _: u32) -> Option<Result<u32, Error>> {
        None
    }
}

#[derive(Debug)]
pub enum Blocked {
    /// The length of this shard is not known yet.
    Waiting(u32),
    Failed(Error),
}
