//! Counts samples that cannot be used, and stops the run if there are too many. They are checked when their batch is delivered,
//! so a failing run always fails at the same batch.

use std::fmt;

use crate::error::{Error, Reason, SampleError};
use crate::shards::Location;

/// Bad samples that are described, not only counted.
const MAX_EXAMPLES: usize = 20;
/// While an epoch runs, the count may exceed the limit by this many standard deviations.
const SLACK: f64 = 4.0;
/// Substitutes tried for one row, at most.
const MAX_SUBSTITUTES: u32 = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSample {
    pub shard: String,
    pub key: String,
    pub error: String,
}

impl fmt::Display for BadSample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: sample {}: {}", self.shard, self.key, self.error)
    }
}

/// Of a row, a batch, an epoch or a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadSamples {
    pub tried: u64,
    /// In the order of [`Reason::NAMES`].
    pub by_reason: [u64; Reason::NAMES.len()],
    /// The first bad samples.
    pub examples: Vec<BadSample>,
}

impl BadSamples {
    pub fn record(&mut self, shard: &Location, key: String, error: &SampleError) {
        self.by_reason[error.reason() as usize] += 1;
        if self.examples.len() < MAX_EXAMPLES {
            let (shard, error) = (shard.to_string(), error.to_string());
            self.examples.push(BadSample { shard, key, error });
        }
    }

    pub fn add(&mut self, later: &Self) {
        self.tried += later.tried;
        for (sum, count) in self.by_reason.iter_mut().zip(later.by_reason) {
            *sum += count;
        }
        let free = MAX_EXAMPLES - self.examples.len().min(MAX_EXAMPLES);
        self.examples.extend(later.examples.iter().take(free).cloned());
    }

    /// Checks an unfinished epoch. Good data exceed the limit at some moment of a long run, so the count must exceed it by more
    /// than chance explains, unless the limit is 0.
    pub fn check_so_far(&self, limit: f64) -> Result<(), Error> {
        let allowed = limit * self.tried as f64;
        let slack = if limit > 0.0 { SLACK * (allowed + 1.0).sqrt() } else { 0.0 };
        self.check(allowed + slack, limit)
    }

    pub fn check_epoch(&self, limit: f64) -> Result<(), Error> {
        self.check(limit * self.tried as f64, limit)
    }

    fn check(&self, allowed: f64, limit: f64) -> Result<(), Error> {
        if self.num_bad() as f64 > allowed { Err(self.too_many(limit)) } else { Ok(()) }
    }

    pub fn too_many(&self, limit: f64) -> Error {
        let counts = Reason::NAMES.iter().zip(self.by_reason).filter(|(_, count)| *count > 0);
        let counts: Vec<String> = counts.map(|(name, count)| format!("{name}: {count}")).collect();
        Error::TooManyBad {
            bad: self.num_bad(),
            seen: self.tried,
            limit,
            counts: counts.join(", "),
            first: self
                .examples
                .iter()
                .take(3)
                .map(BadSample::to_string)
                .collect::<Vec<_>>()
                .join("; "),
        }
    }

    fn num_bad(&self) -> u64 {
        self.by_reason.iter().sum()
    }
}

/// Substitutes tried for one row before the run fails. Within `limit`, one row in 1e20 runs out of them.
pub fn max_substitutes(limit: f64) -> u32 {
    if limit <= 0.0 {
        return 0;
    }
    // A limit of 1 gives infinity, which the cast and the minimum turn into the maximum.
    ((-20.0 / limit.log10()).abs().ceil() as u32).min(MAX_SUBSTITUTES)
}

#[cfg(test)]
#[path = "bad_samples_tests.rs"]
mod tests;
