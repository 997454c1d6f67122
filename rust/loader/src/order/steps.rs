//! The steps of an epoch: how many, of which samples and sequence lengths; and the settings that decide.

use std::sync::Arc;

use super::partition::Partition;
use super::shard_list::ShardList;
use super::shard_sampler::ShardSampler;
use crate::config::{LastBatch, NativeConfig};
use crate::rng::{SampleRng, stream};

#[derive(Debug, Clone)]
pub struct OrderSettings {
    pub seed: u64,
    pub window: usize,
    /// Samples of a rank in a step; 1 for native images.
    pub batch_size: u64,
    pub native: Option<Arc<NativeConfig>>,
    pub rank: u64,
    pub world_size: u64,
    pub last_batch: LastBatch,
    /// `None` for no end.
    pub num_epochs: Option<u64>,
    pub streamed: bool,
    pub num_samples: Option<u64>,
    /// `None` if an epoch reads each shard once.
    pub sampler: Option<Arc<ShardSampler>>,
}

impl OrderSettings {
    pub fn partition(&self, total: u64) -> Partition {
        Partition { total, world_size: self.world_size, batch_size: self.batch_size }
    }

    /// The sequence length of the next step, 0 for square images, and the samples of a rank. Both depend only on how many samples
    /// all ranks have read in this epoch, so any number of ranks takes the same steps.
    pub fn step(&self, samples_read: u64) -> (u32, u64) {
        let Some(native) = &self.native else { return (0, self.batch_size) };
        let (lengths, probs) = (&native.seq_lens, &native.seq_len_probs);
        let weight = |place| probs.get(place).map_or(1.0, |&prob| prob as f32);
        let mut rng = SampleRng::new(self.seed, 0, samples_read, stream::SEQ_LENS);
        let seq_len = lengths[rng.weighted((0..lengths.len()).map(weight))];
        (seq_len, native.rows(seq_len))
    }

    /// Steps of a rank through `room` positions, and the positions that they take. All ranks have read `samples_read` samples of
    /// the epoch before.
    pub fn steps(&self, room: u64, samples_read: u64) -> (u64, u64) {
        let drop = self.last_batch == LastBatch::Drop;
        let (mut steps, mut taken) = (0, 0);
        if self.native.is_none() {
            steps = if drop { room / self.batch_size } else { room.div_ceil(self.batch_size) };
            return (steps, steps * self.batch_size);
        }
        while taken < room {
            let rows = self.step(samples_read + taken * self.world_size).1;
            if drop && taken + rows > room {
                break;
            }
            (steps, taken) = (steps + 1, taken + rows);
        }
        (steps, taken)
    }

    /// Whether an epoch may read a sample more than once, apart from the samples that fill its last batch.
    pub fn repeats(&self) -> bool {
        self.sampler.is_some() || self.streamed && self.last_batch != LastBatch::Keep
    }

    /// Samples per epoch over shards of these lengths. `None` if lengths are unknown and none was configured, or if every rank reads
    /// whatever its shards hold.
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
