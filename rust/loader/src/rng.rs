//! Random numbers that depend only on (seed, epoch, sample, stream).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a generator is used for. Each purpose has its own stream, so an additional draw for one purpose leaves the others
/// unchanged.
pub mod stream {
    /// Crop, colour jitter and grey.
    pub const AUGMENT: u64 = 0;
    /// Which caption of a sample is used.
    pub const CAPTION: u64 = 1;
    /// Which tokens are masked.
    pub const MASK: u64 = 2;
    /// The order of shards and samples.
    pub const ORDER: u64 = 3;
    /// Which patches are kept.
    pub const PATCHES: u64 = 4;
    /// Which sample replaces a bad one.
    pub const SUBSTITUTE: u64 = 5;
    /// The shards of an epoch.
    pub const SHARDS: u64 = 6;

    /// The stream of one leg and one rank, for draws that belong to no sample.
    #[must_use]
    pub fn of_leg(purpose: u64, leg: u64, rank: u64) -> u64 {
        // Purpose, leg and rank have 8, 24 and 32 bits. Larger configurations and cursors are rejected.
        purpose | leg << 8 | rank << 32
    }
}

/// A generator keyed by (seed, epoch, sample, stream).
#[derive(Debug, Clone)]
pub struct SampleRng(ChaCha8Rng);

impl SampleRng {
    /// The generator of one sample in one epoch for one purpose (see [`stream`]).
    #[must_use]
    pub fn new(seed: u64, epoch: u64, sample: u64, stream: u64) -> Self {
        let mut key = [0u8; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, epoch, sample, stream]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A uniform number in [0, 1) with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A number in [lo, hi), or `lo` if they are equal.
    pub fn range(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * self.uniform()
    }

    /// A uniform integer in 0..n; 0 for n = 0.
    pub fn below(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        // The high half of the 64-bit product is almost uniform. Drawing again for the few low halves that favour some
        // results makes it exactly uniform.
        let reject_below = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.0.next_u32()) * u64::from(n);
            if product as u32 >= reject_below {
                return (product >> 32) as u32;
            }
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Shuffles the items uniformly.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // No slice exceeds u32: a window has at most 2^31 samples, and shards are numbered in u32.
            let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
            items.swap(last, self.below(bound) as usize);
        }
    }

    /// Draws an index in proportion to its weight. Weights that are negative or not finite count as zero. The index is 0 if
    /// all weights are zero.
    pub fn weighted(&mut self, weights: impl Iterator<Item = f32> + Clone) -> usize {
        let usable = |weight: f32| {
            if weight.is_finite() && weight > 0.0 { f64::from(weight) } else { 0.0 }
        };
        let total: f64 = weights.clone().map(usable).sum();
        let mut left = self.uniform() * total;
        let mut last = 0;
        for (index, weight) in weights.map(usable).enumerate() {
            if weight > 0.0 {
                last = index;
                if left < weight {
                    return index;
                }
                left -= weight;
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::{ChaCha8Rng, Rng as _, SampleRng, SeedableRng, stream};
    use proptest::prelude::*;

    #[test]
    fn draws_have_known_values() {
        let mut rng = SampleRng::new(1, 2, 3, stream::MASK);
        let words: Vec<u32> = (0..4).map(|_| rng.below(1_000_000)).collect();
        // The first words of ChaCha8 for this key, from another implementation.
        assert_eq!(words, [387_474, 570_518, 259_899, 379_891]);
        let mut key = [0u8; 32];
        (key[0], key[8], key[16], key[24]) = (1, 2, 3, 2);
        let mut direct = ChaCha8Rng::from_seed(key);
        let mut rng = SampleRng::new(1, 2, 3, stream::MASK);
        assert_eq!(rng.uniform(), (direct.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0);
    }

    #[test]
    fn below_is_uniform() {
        let mut rng = SampleRng::new(0, 0, 0, 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        // Ten standard deviations: sqrt(70,000 * 1/7 * 6/7) = 93.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 930), "{counts:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn weighted_draws_follow_their_weights() {
        let mut rng = SampleRng::new(5, 0, 0, 0);
        let mut counts = [0u32; 4];
        for _ in 0..40_000 {
            counts[rng.weighted([1.0, 0.0, 3.0, f32::NAN].into_iter())] += 1;
        }
        assert!(counts[0].abs_diff(10_000) < 900, "{counts:?}");
        assert_eq!((counts[1], counts[3]), (0, 0));
        assert_eq!(rng.weighted(std::iter::empty()), 0);
        assert_eq!(rng.weighted([0.0, -1.0].into_iter()), 0);
    }

    proptest! {
        #[test]
        fn every_key_word_changes_the_draws(key in any::<[u64; 4]>(), word in 0usize..4, other in any::<u64>()) {
            let mut changed = key;
            changed[word] = other;
            let first = |k: [u64; 4]| SampleRng::new(k[0], k[1], k[2], k[3]).uniform();
            prop_assert_eq!(first(key), first(key));
            if changed != key {
                prop_assert_ne!(first(key), first(changed));
            }
        }

        #[test]
        fn draws_stay_in_range(seed in any::<u64>(), lo in -1e3f64..1e3, width in 0f64..1e3, n in 1u32..) {
            let mut rng = SampleRng::new(seed, 0, 0, 0);
            let x = rng.range(lo, lo + width);
            prop_assert!(x >= lo && x <= lo + width);
            prop_assert!(rng.below(n) < n);
            prop_assert!(!rng.chance(0.0) && rng.chance(1.0));
        }

        #[test]
        fn shuffle_gives_a_permutation(seed in any::<u64>(), length in 0usize..200) {
            let mut items: Vec<usize> = (0..length).collect();
            SampleRng::new(seed, 0, 0, 0).shuffle(&mut items);
            items.sort_unstable();
            prop_assert_eq!(items, (0..length).collect::<Vec<_>>());
        }
    }
}
