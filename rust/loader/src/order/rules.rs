//! The settings that the order of samples depends on.

use std::sync::Arc;

use super::cursor::Leg;
use super::epoch::EpochOrder;
use super::partition::Division;
use super::shard_list::ShardList;
use super::shard_sampler::Draws;
use crate::config::LastBatch;

/// What the order of a run is a function of, besides the numbers of samples in its shards.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Seed of every draw.
    pub seed: u64,
    /// Samples that are shuffled together; 0 keeps the order of the files.
    pub window: usize,
    /// Samples of one rank's batch.
    pub batch_size: u64,
    /// This rank.
    pub rank: u64,
    /// Number of ranks.
    pub world_size: u64,
    /// What becomes of the samples that do not fill a last batch.
    pub last_batch: LastBatch,
    /// Epochs, `None` for no end.
    pub num_epochs: Option<u64>,
    /// Whether shards of unknown length are among them.
    pub streamed: bool,
    /// Samples of an epoch, where the shards do not say.
    pub num_samples: Option<u64>,
    /// Shards that are drawn with replacement; nothing where each is read once an epoch.
    pub draws: Option<Arc<Draws>>,
}

impl Rules {
    /// How an epoch of `total` samples is divided at its beginning.
    #[must_use]
    pub fn division(&self, total: u64) -> Division {
        Division {
            total,
            world_size: self.world_size,
            batch_size: self.batch_size,
        }
    }

    /// Samples of an epoch over shards of these numbers of samples; nothing where the shards do not say beforehand what they
    /// hold and that is what is read, or nobody said anything else.
    #[must_use]
    pub fn epoch_samples(&self, counts: &[u32]) -> Option<u64> {
        match &self.draws {
            Some(draws) => Some(draws.num_samples),
            None if self.streamed => self
                .num_samples
                .filter(|_| self.last_batch != LastBatch::Keep),
            None => Some(counts.iter().map(|&count| u64::from(count)).sum()),
        }
    }

    /// The list of an epoch over shards of these numbers of samples.
    #[must_use]
    pub fn list(&self, counts: &[u32], epoch: u64) -> ShardList {
        let key = (self.seed, epoch);
        match &self.draws {
            Some(draws) => ShardList::drawn(counts, draws, key),
            None => ShardList::once(counts, (self.window > 0).then_some(key)),
        }
    }

    /// The order of what some legs left of an epoch.
    #[must_use]
    pub fn order(&self, counts: &[u32], epoch: u64, earlier: &[Leg]) -> EpochOrder {
        EpochOrder::new(
            self.list(counts, epoch),
            (self.seed, epoch),
            self.window,
            earlier,
            (self.world_size, self.batch_size),
        )
    }
}
