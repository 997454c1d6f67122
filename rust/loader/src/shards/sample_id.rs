//! Which sample: the shard and the place in it.

/// Which sample: its shard's place in the list of shards, and its place in the shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleId {
    /// Place of the shard in the expanded list.
    pub shard: u32,
    /// Place in the shard, from 0.
    pub sample: u32,
}

impl SampleId {
    /// The number that keys the sample's draws.
    #[must_use]
    pub fn key(self) -> u64 {
        u64::from(self.shard) << 32 | u64::from(self.sample)
    }
}
