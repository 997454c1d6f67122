//! A sample's shard and its position in it.

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleId {
    /// Index of the shard in the expanded list.
    pub shard: u32,
    /// From 0.
    pub sample: u32,
}

impl SampleId {
    /// Keys the sample's random draws.
    pub fn key(self) -> u64 {
        u64::from(self.shard) << 32 | u64::from(self.sample)
    }
}
