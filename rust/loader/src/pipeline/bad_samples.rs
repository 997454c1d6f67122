//! Counts samples that cannot be used, and stops the run if there are too many.
//!
//! They are counted with the batch that they were meant for, and checked when it is delivered. This does not depend on
//! thread timing, so a failing run always fails at the same batch.

use std::fmt;

use crate::error::{Error, Printable, Reason, SampleError};

/// How many bad samples are described, not only counted.
const MAX_EXAMPLES: usize = 20;
/// While an epoch runs, the count may exceed the limit by this many standard deviations.
const SLACK: f64 = 4.0;
/// Maximum number of substitutes tried for one row.
const MAX_SUBSTITUTES: u32 = 1000;

/// How many samples were tried for a row, a batch, an epoch or a run, and which of them were bad.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadSamples {
    /// Samples tried, including bad ones.
    pub tried: u64,
    /// Number of bad samples, in the order of [`Reason::ALL`].
    pub by_reason: [u64; Reason::ALL.len()],
    /// Descriptions of the first bad samples: shard, key, what is wrong.
    pub examples: Vec<String>,
}

impl BadSamples {
    /// Records a bad sample.
    pub fn record(&mut self, place: fmt::Arguments<'_>, error: &SampleError) {
        self.by_reason[error.reason() as usize] += 1;
        if self.examples.len() < MAX_EXAMPLES {
            let line = format!("{place}: {error}");
            self.examples.push(Printable(&line).to_string());
        }
    }

    /// Adds later counts.
    pub fn add(&mut self, later: &Self) {
        self.tried += later.tried;
        for (sum, count) in self.by_reason.iter_mut().zip(later.by_reason) {
            *sum += count;
        }
        let free = MAX_EXAMPLES - self.examples.len().min(MAX_EXAMPLES);
        self.examples.extend(later.examples.iter().take(free).cloned());
    }

    /// Checks an unfinished epoch. Even good data exceed the limit at some moment of a long run, so the count must
    /// exceed it by more than chance explains. With a limit of 0 a single bad sample is too many.
    ///
    /// # Errors
    /// There are more bad samples than `limit` allows.
    pub fn check_so_far(&self, limit: f64) -> Result<(), Error> {
        let allowed = limit * self.tried as f64;
        let slack = if limit > 0.0 { SLACK * (allowed + 1.0).sqrt() } else { 0.0 };
        self.check(allowed + slack, limit)
    }

    /// Checks a finished epoch, without slack.
    ///
    /// # Errors
    /// There are more bad samples than `limit` allows.
    pub fn check_epoch(&self, limit: f64) -> Result<(), Error> {
        self.check(limit * self.tried as f64, limit)
    }

    fn check(&self, allowed: f64, limit: f64) -> Result<(), Error> {
        if self.num_bad() as f64 > allowed { Err(self.too_many(limit)) } else { Ok(()) }
    }

    /// The error that says how many samples are bad, and why.
    #[must_use]
    pub fn too_many(&self, limit: f64) -> Error {
        let counts: Vec<String> = Reason::ALL
            .iter()
            .zip(self.by_reason)
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{}: {count}", reason.name()))
            .collect();
        Error::TooManyBad {
            bad: self.num_bad(),
            seen: self.tried,
            limit,
            counts: counts.join(", "),
            first: self.examples[..self.examples.len().min(3)].join("; "),
        }
    }

    fn num_bad(&self) -> u64 {
        self.by_reason.iter().sum()
    }
}

/// How many substitutes are tried for one row before the run fails. If the share of bad samples is within `limit`,
/// one row in 1e20 runs out of them.
#[must_use]
pub fn max_substitutes(limit: f64) -> u32 {
    if limit <= 0.0 {
        return 0;
    }
    // 0.01 gives 10. A limit of 1 gives infinity, which the cast and the minimum turn into the maximum.
    ((-20.0 / limit.log10()).abs().ceil() as u32).min(MAX_SUBSTITUTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SampleRng;

    /// Number of samples after which data with this share of bad ones fail, in batches of 8.
    fn fails_after(rate: f64, limit: f64, seed: u64) -> Option<u64> {
        let (mut rng, mut bad_samples) = (SampleRng::new(seed, 0, 0, 0), BadSamples::default());
        while bad_samples.tried < 10_000 {
            for _ in 0..8 {
                bad_samples.tried += 1;
                bad_samples.by_reason[0] += u64::from(rng.chance(rate));
            }
            if bad_samples.check_so_far(limit).is_err() {
                return Some(bad_samples.tried);
            }
        }
        None
    }

    #[test]
    fn data_within_the_limit_never_fail_by_chance() {
        for seed in 0..40 {
            for rate in [0.005, 0.008] {
                assert_eq!(fails_after(rate, 0.01, seed), None, "{rate}, {seed}");
            }
        }
    }

    #[test]
    fn data_far_above_the_limit_fail_soon() {
        for seed in 0..20 {
            for (rate, within) in [(1.0, 8), (0.5, 24), (0.1, 200), (0.03, 3_000)] {
                let after = fails_after(rate, 0.01, seed);
                assert!(after.is_some_and(|after| after <= within), "{rate}, {seed}: {after:?}");
            }
        }
    }

    #[test]
    fn the_epoch_check_has_no_slack_and_a_limit_of_zero_allows_none() {
        let bad_samples = |bad, tried| BadSamples {
            tried,
            by_reason: [bad, 0, 0, 0, 0, 0],
            examples: Vec::new(),
        };
        assert!(bad_samples(2, 100).check_so_far(0.01).is_ok());
        assert!(bad_samples(2, 100).check_epoch(0.01).is_err());
        assert!(bad_samples(1, 100).check_epoch(0.01).is_ok());
        assert!(bad_samples(1, 1000).check_so_far(0.0).is_err());
        assert!(bad_samples(0, 0).check_so_far(0.0).is_ok());
        assert!(bad_samples(0, 0).check_epoch(0.0).is_ok());
    }

    #[test]
    fn summed_counts_keep_the_first_examples() {
        let (mut sum, mut part) = (BadSamples::default(), BadSamples::default());
        part.tried = 15;
        for number in 0..15 {
            part.record(format_args!("sample {number}"), &SampleError::NoImage);
        }
        sum.add(&part);
        sum.add(&part);
        assert_eq!((sum.tried, sum.by_reason[0], sum.examples.len()), (30, 30, MAX_EXAMPLES));
        assert!(sum.examples[15].starts_with("sample 0: no image"));
    }

    #[test]
    fn line_breaks_in_a_key_are_escaped() {
        let mut bad_samples = BadSamples::default();
        bad_samples.record(format_args!("sample a\nb\u{1b}[31m"), &SampleError::NoImage);
        let [line] = &*bad_samples.examples else { panic!("{bad_samples:?}") };
        assert!(line.starts_with("sample a\\nb\\u{1b}[31m: no image"), "{line}");
    }

    #[test]
    fn a_lower_limit_tries_fewer_substitutes() {
        let numbers = [0.0, 1e-30, 0.01, 0.1, 0.5, 0.99, 1.0].map(max_substitutes);
        assert_eq!(numbers, [0, 1, 10, 20, 67, 1000, 1000]);
    }
}
