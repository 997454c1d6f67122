//! Random numbers that depend only on (seed, epoch, sample, stream).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Each purpose has its own stream, so another draw for one leaves the others unchanged.
pub mod stream {
    pub const AUGMENT: u64 = 0;
    /// Which caption of a sample is used.
    pub const CAPTION: u64 = 1;
    pub const MASK: u64 = 2;
    pub const ORDER: u64 = 3;
    pub const PATCHES: u64 = 4;
    pub const SUBSTITUTE: u64 = 5;
    pub const SHARDS: u64 = 6;
    pub const SEQ_LENS: u64 = 7;

    /// Of one leg and one rank, for draws that belong to no sample.
    pub fn of_leg(purpose: u64, leg: u64, rank: u64) -> u64 {
        // Purpose, leg and rank have 8, 24 and 32 bits. Larger configurations and cursors are rejected.
        purpose | leg << 8 | rank << 32
    }
}

#[derive(Debug, Clone)]
pub struct SampleRng(ChaCha8Rng);

impl SampleRng {
    pub fn new(seed: u64, epoch: u64, sample: u64, stream: u64) -> Self {
        let mut key = [0u8; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, epoch, sample, stream]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in [0, 1), with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// In [lo, hi), or `lo` if they are equal.
    pub fn range(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * self.uniform()
    }

    /// Uniform in 0..n; 0 for n = 0.
    pub fn below(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        // The high half of the 64-bit product is almost uniform. Drawing again for the few low halves that favour some results
        // makes it exactly so.
        let reject_below = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.0.next_u32()) * u64::from(n);
            if product as u32 >= reject_below {
                return (product >> 32) as u32;
            }
        }
    }

    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // A window has at most 2^31 samples, and shards are numbered in u32.
            let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
            items.swap(last, self.below(bound) as usize);
        }
    }

    /// Draws an index in proportion to its weight. Weights that are negative or not finite count as zero. 0 if all are zero.
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
#[path = "rng_tests.rs"]
mod tests;
