//! Draws shards with replacement.

use crate::rng::SampleRng;

#[derive(Debug, Clone, PartialEq)]
pub struct WeightedShards {
    pub shards: Vec<u32>,
    pub weight: f64,
}

/// Draws shards by the weights of their patterns.
#[derive(Debug, Clone)]
pub struct ShardSampler {
    sources: Vec<WeightedShards>,
    /// Cumulative weights: the total weight of all shards up to the end of each source.
    beyond: Vec<f64>,
    pub num_samples: u64,
}

impl ShardSampler {
    pub fn new(mut sources: Vec<WeightedShards>, num_samples: u64) -> Option<Self> {
        sources.retain(|source| source.weight > 0.0 && !source.shards.is_empty());
        let mut sum = 0.0;
        let beyond = sources.iter().map(|source| {
            sum += source.weight * source.shards.len() as f64;
            sum
        });
        let beyond: Vec<f64> = beyond.collect();
        (!sources.is_empty()).then_some(Self { sources, beyond, num_samples })
    }

    pub fn draw(&self, rng: &mut SampleRng) -> u32 {
        let place = rng.uniform() * self.beyond.last().copied().unwrap_or(0.0);
        let source = self.beyond.partition_point(|&beyond| beyond <= place);
        // Rounding can make the product equal to the sum.
        let shards = &self.sources[source.min(self.sources.len() - 1)].shards;
        shards[rng.below(u32::try_from(shards.len()).unwrap_or(u32::MAX)) as usize]
    }

    /// In a drawn shard. `counts` are the lengths of the shards.
    pub fn mean_samples(&self, counts: &[u32]) -> f64 {
        let of_source = |source: &WeightedShards| -> f64 {
            let samples = source.shards.iter().map(|&shard| counts[shard as usize]);
            source.weight * samples.map(f64::from).sum::<f64>()
        };
        let sum: f64 = self.sources.iter().map(of_source).sum();
        sum / self.beyond.last().copied().unwrap_or(1.0)
    }
}
