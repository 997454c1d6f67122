//! The samples of an epoch as a list of shards.

use std::ops::Range;

use super::shard_sampler::ShardSampler;
use crate::rng::{SampleRng, stream};
use crate::shards::SampleId;

/// Shards in order, each with all its samples in order.
#[derive(Debug, Clone, Default)]
pub struct ShardList {
    starts: Vec<u64>,
    shards: Vec<u32>,
    total: u64,
}

impl ShardList {
    /// Every shard once, shuffled with a (seed, epoch) or in the given order. `counts` are the lengths of the shards.
    pub fn once(counts: &[u32], shuffled: Option<(u64, u64)>) -> Self {
        let mut shards: Vec<u32> = (0..counts.len() as u32).collect();
        if let Some((seed, epoch)) = shuffled {
            SampleRng::new(seed, epoch, 0, stream::SHARDS).shuffle(&mut shards);
        }
        shards.retain(|&shard| counts[shard as usize] > 0);
        let mut list = Self::default();
        list.starts.reserve_exact(shards.len());
        for &shard in &shards {
            list.starts.push(list.total);
            list.total += u64::from(counts[shard as usize]);
        }
        list.shards = shards;
        list
    }

    /// Shards drawn with replacement until the epoch is full; the last one is cut. At least one shard that can be
    /// drawn must hold a sample.
    pub fn drawn(counts: &[u32], sampler: &ShardSampler, (seed, epoch): (u64, u64)) -> Self {
        let mut rng = SampleRng::new(seed, epoch, 0, stream::SHARDS);
        let mut list = Self::default();
        while list.total < sampler.num_samples {
            let shard = sampler.draw(&mut rng);
            let count = u64::from(counts[shard as usize]);
            if count > 0 {
                list.starts.push(list.total);
                list.shards.push(shard);
                list.total += count;
            }
        }
        list.total = sampler.num_samples;
        list
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn append_to(&self, samples: &mut Vec<SampleId>, positions: Range<u64>) {
        assert!(positions.end <= self.total, "beyond the end of an epoch");
        let mut at = positions.start;
        let mut place = self.starts.partition_point(|&start| start <= at);
        while at < positions.end {
            let start = self.starts[place - 1];
            let end = self.starts.get(place).map_or(self.total, |&next| next);
            let end = end.min(positions.end);
            let shard = self.shards[place - 1];
            let ids = (at - start) as u32..(end - start) as u32;
            samples.extend(ids.map(|sample| SampleId { shard, sample }));
            (at, place) = (end, place + 1);
        }
    }
}
