//! The settings that the order of samples depends on.

use std::sync::Arc;

use super::partition::Partition;
use super::shard_list::ShardList;
use super::shard_sampler::ShardSampler;
use crate::config::LastBatch;

/// Everything that the order of a run depends on, apart from the lengths of the shards.
#[derive(Debug, Clone)]
pub struct OrderSettings {
    /// Seed of all random draws.
    pub seed: u64,
    /// Samples that are shuffled together; 0 keeps the order of the files.
    pub window: usize,
    /// Samples per rank and batch.
    pub batch_size: u64,
    /// This rank.
    pub rank: u64,
    /// Number of ranks.
    pub world_size: u64,
    /// What happens to the samples that do not fill a last batch.
    pub last_batch: LastBatch,
    /// Number of epochs; `None` for no end.
    pub num_epochs: Option<u64>,
    /// Whether some shards have unknown lengths.
    pub streamed: bool,
    /// Samples per epoch, if configured.
    pub num_samples: Option<u64>,
    /// Draws shards with replacement; `None` if an epoch reads each shard once.
    pub sampler: Option<Arc<ShardSampler>>,
}

impl OrderSettings {
    /// How an epoch of `total` samples is divided at its beginning.
    #[must_use]
    pub fn partition(&self, total: u64) -> Partition {
        Partition { total, world_size: self.world_size, batch_size: self.batch_size }
    }

    /// Whether an epoch may read a sample more than once, apart from the samples that fill its last batch.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.sampler.is_some() || self.streamed && self.last_batch != LastBatch::Keep
    }

    /// Samples per epoch over shards of these lengths. `None` if lengths are unknown and none was configured, or if
    /// every rank reads whatever its shards hold.
    #[must_use]
    pub fn epoch_samples(&self, counts: &[u32]) -> Option<u64> {
        match &self.sampler {
            Some(sampler) => Some(sampler.num_samples),
            None if self.streamed => {
                self.num_samples.filter(|_| self.last_batch != LastBatch::Keep)
            }
            None => Some(counts.iter().map(|&count| u64::from(count)).sum()),
        }
    }

    /// The list of samples in an epoch.
    #[must_use]
    pub fn list(&self, counts: &[u32], epoch: u64) -> ShardList {
        let key = (self.seed, epoch);
        match &self.sampler {
            Some(sampler) => ShardList::drawn(counts, sampler, key),
            None => ShardList::once(counts, (self.window > 0).then_some(key)),
        }
    }
}
