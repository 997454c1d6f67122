//! The shards of an epoch, end to end.

use std::ops::Range;

use super::shard_sampler::Draws;
use crate::rng::{SampleRng, stream};
use crate::shards::SampleId;

/// Shards one behind the other, each from its first sample to its last.
#[derive(Debug, Clone, Default)]
pub struct ShardList {
    /// Position of each one's first sample.
    starts: Vec<u64>,
    shards: Vec<u32>,
    total: u64,
}

impl ShardList {
    /// Every shard once, of these numbers of samples: in an order drawn for the epoch, or as they are.
    #[must_use]
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

    /// Shards of these numbers of samples, drawn with replacement; the last of them is cut off where the epoch ends. Those that
    /// may be drawn must not all be empty.
    #[must_use]
    pub fn drawn(counts: &[u32], draws: &Draws, (seed, epoch): (u64, u64)) -> Self {
        let mut rng = SampleRng::new(seed, epoch, 0, stream::SHARDS);
        let mut list = Self::default();
        while list.total < draws.num_samples {
            let shard = draws.draw(&mut rng);
            let count = u64::from(counts[shard as usize]);
            if count > 0 {
                list.starts.push(list.total);
                list.shards.push(shard);
                list.total += count;
            }
        }
        list.total = draws.num_samples;
        list
    }

    /// Samples of the list.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Appends the samples at these positions.
    ///
    /// # Panics
    /// If the list has fewer.
    pub fn read(&self, positions: Range<u64>, samples: &mut Vec<SampleId>) {
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
