//! The settings that the order of samples depends on.

use std::sync::Arc;

use super::partition::Partition;
use super::shard_list::ShardList;
use super::shard_sampler::ShardSampler;
use crate::config::LastBatch;

#[derive(Debug, Clone)]
pub struct OrderSettings {
    pub seed: u64,
    pub window: usize,
    pub batch_size: u64,
    pub rank: u64,
    pub world_size: u64,
    pub last_batch: LastBatch,
    /// Number of epochs; `None` for no end.
    pub num_epochs: Option<u64>,
    pub streamed: bool,
    pub num_samples: Option<u64>,
    /// Draws shards with replacement; `None` if an epoch reads each shard once.
    pub sampler: Option<Arc<ShardSampler>>,
}

impl OrderSettings {
    /// How an epoch of `total` samples is divided at its beginning.
    pub fn partition(&self, total: u64) -> Partition {
        Partition { total, world_size: self.world_size, batch_size: self.batch_size }
    }

    /// Whether an epoch may read a sample more than once, apart from the samples that fill its last batch.
    pub fn repeats(&self) -> bool {
        self.sampler.is_some() || self.streamed && self.last_batch != LastBatch::Keep
    }

    /// Samples per epoch over shards of these lengths. `None` if lengths are unknown and none was configured, or if
    /// every rank reads whatever its shards hold.
    pub fn epoch_samples(&self, counts: &[u32]) -> Option<u64> {
        match &self.sampler {
            Some(sampler) => Some(sampler.num_samples),
            None if self.streamed => {
                self.num_samples.filter(|_| self.last_batch != LastBatch::Keep)
            }
            None => Some(counts.iter().map(|&count| u64::from(count)).sum()),
        }
    }

    pub fn list(&self, counts: &[u32], epoch: u64) -> ShardList {
        let key = (self.seed, epoch);
        match &self.sampler {
            Some(sampler) => ShardList::drawn(counts, sampler, key),
            None => ShardList::once(counts, (self.window > 0).then_some(key)),
        }
    }
}
