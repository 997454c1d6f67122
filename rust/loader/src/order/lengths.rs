//! Shards' numbers of samples, as far as they are known.

use crate::error::Error;
use crate::shards::UNKNOWN_LENGTH;

/// A shard that must be here for something to be read, and its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// Its place in the list of shards.
    pub shard: u32,
    /// Its samples.
    pub samples: u32,
}

/// Says how many samples the shards hold. An answer never changes.
pub trait Lengths {
    /// Samples of every shard of the list, or [`UNKNOWN_LENGTH`].
    fn counts(&self) -> &[u32];

    /// Samples of a shard where they were [`UNKNOWN_LENGTH`]; nothing as long as it is not here.
    fn learn(&self, shard: u32) -> Option<Result<u32, Error>>;

    /// Samples of a shard; nothing as long as they are not known.
    fn samples(&self, shard: u32) -> Option<Result<u32, Error>> {
        match self.counts()[shard as usize] {
            UNKNOWN_LENGTH => self.learn(shard),
            count => Some(Ok(count)),
        }
    }
}

impl Lengths for Vec<u32> {
    fn counts(&self) -> &[u32] {
        self
    }

    fn learn(&self, _: u32) -> Option<Result<u32, Error>> {
        None
    }
}

/// Why something cannot be read now.
#[derive(Debug)]
pub enum Blocked {
    /// The number of samples of this shard is not known yet.
    Waiting(u32),
    /// It never will be.
    Failed(Error),
}
