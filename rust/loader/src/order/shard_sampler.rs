//! Shards drawn with replacement.

use crate::rng::SampleRng;

/// The shards of one pattern, and how often each of them is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Places in the list of shards.
    pub shards: Vec<u32>,
    /// How often one of them is drawn, relative to one of another source.
    pub weight: f64,
}

/// Draws shards by the weight of their source.
#[derive(Debug, Clone)]
pub struct Draws {
    sources: Vec<Source>,
    /// Weight of all shards up to each source's last.
    beyond: Vec<f64>,
    /// Samples of an epoch.
    pub num_samples: u64,
}

impl Draws {
    /// Draws from these sources; nothing where no shard would ever be drawn.
    #[must_use]
    pub fn new(mut sources: Vec<Source>, num_samples: u64) -> Option<Self> {
        sources.retain(|source| source.weight > 0.0 && !source.shards.is_empty());
        let mut sum = 0.0;
        let beyond = sources.iter().map(|source| {
            sum += source.weight * source.shards.len() as f64;
            sum
        });
        let beyond: Vec<f64> = beyond.collect();
        (!sources.is_empty()).then_some(Self {
            sources,
            beyond,
            num_samples,
        })
    }

    /// A shard.
    pub fn draw(&self, rng: &mut SampleRng) -> u32 {
        let place = rng.uniform() * self.beyond.last().copied().unwrap_or(0.0);
        let source = self.beyond.partition_point(|&beyond| beyond <= place);
        // A rounding may carry the product up to the sum itself.
        let shards = &self.sources[source.min(self.sources.len() - 1)].shards;
        shards[rng.below(u32::try_from(shards.len()).unwrap_or(u32::MAX)) as usize]
    }

    /// Samples that a drawn shard has on average, of these numbers of samples.
    #[must_use]
    pub fn mean_samples(&self, counts: &[u32]) -> f64 {
        let of_source = |source: &Source| -> f64 {
            let samples = source.shards.iter().map(|&shard| counts[shard as usize]);
            source.weight * samples.map(f64::from).sum::<f64>()
        };
        let sum: f64 = self.sources.iter().map(of_source).sum();
        sum / self.beyond.last().copied().unwrap_or(1.0)
    }
}
