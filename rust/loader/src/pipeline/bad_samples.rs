//! Samples that could not be used: counted with the batch that they were meant for, judged when it is delivered.
//!
//! Nothing here depends on which thread was first, so a run that fails does so at the same batch every time.

use std::fmt;

use crate::error::{Error, Reason, SampleError};

/// Bad samples that are named, not only counted.
const NAMED: usize = 20;
/// Standard deviations that the count may lie above the limit while an epoch runs.
const SLACK: f64 = 4.0;
/// Substitutes that are tried for one place at most.
const MAX_SUBSTITUTES: u32 = 1000;

/// Samples that were tried for a slot, a batch, an epoch or a run, and those of them that were bad.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples that were tried, bad ones included.
    pub tried: u64,
    /// Bad samples, in the order of [`Reason::ALL`].
    pub bad: [u64; Reason::ALL.len()],
    /// The first bad samples: shard, key, what is wrong.
    pub first: Vec<String>,
}

impl Tally {
    /// Counts a sample that was tried and cannot be used.
    pub fn bad(&mut self, place: fmt::Arguments<'_>, error: &SampleError) {
        self.bad[error.reason() as usize] += 1;
        if self.first.len() < NAMED {
            self.first.push(format!("{place}: {error}"));
        }
    }

    /// Adds what was counted after this.
    pub fn add(&mut self, later: &Self) {
        self.tried += later.tried;
        for (sum, count) in self.bad.iter_mut().zip(later.bad) {
            *sum += count;
        }
        let free = NAMED - self.first.len().min(NAMED);
        self.first.extend(later.first.iter().take(free).cloned());
    }

    /// Judges an epoch that goes on: data just within the limit are above it at some moment of every long run, so the
    /// count must be above it by more than chance gives. With a limit of 0 the first bad sample is one too many.
    ///
    /// # Errors
    /// There are more bad samples than `limit` allows.
    pub fn check_so_far(&self, limit: f64) -> Result<(), Error> {
        let allowed = limit * self.tried as f64;
        let slack = if limit > 0.0 {
            SLACK * (allowed + 1.0).sqrt()
        } else {
            0.0
        };
        self.check(allowed + slack, limit)
    }

    /// Judges an epoch that is over, without slack.
    ///
    /// # Errors
    /// There are more bad samples than `limit` allows.
    pub fn check_whole(&self, limit: f64) -> Result<(), Error> {
        self.check(limit * self.tried as f64, limit)
    }

    fn check(&self, allowed: f64, limit: f64) -> Result<(), Error> {
        if self.num_bad() as f64 > allowed {
            Err(self.too_many(limit))
        } else {
            Ok(())
        }
    }

    /// The error that says how many samples cannot be used, and why.
    #[must_use]
    pub fn too_many(&self, limit: f64) -> Error {
        let counts: Vec<String> = Reason::ALL
            .iter()
            .zip(self.bad)
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{}: {count}", reason.name()))
            .collect();
        Error::TooManyBad {
            bad: self.num_bad(),
            seen: self.tried,
            limit,
            counts: counts.join(", "),
            first: self.first[..self.first.len().min(3)].join("; "),
        }
    }

    fn num_bad(&self) -> u64 {
        self.bad.iter().sum()
    }
}

/// Substitutes that are tried for one place before the data are called unusable: so many that with a share of bad samples
/// within `limit` one place in 1e20 runs out of them.
#[must_use]
pub fn max_substitutes(limit: f64) -> u32 {
    if limit <= 0.0 {
        return 0;
    }
    // 0.01 gives 10. A limit of 1 gives infinity, which the cast and the minimum make the largest number.
    ((-20.0 / limit.log10()).abs().ceil() as u32).min(MAX_SUBSTITUTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SampleRng;

    /// Samples after which data with this share of bad ones fail, in batches of 8.
    fn fails_after(rate: f64, limit: f64, seed: u64) -> Option<u64> {
        let (mut rng, mut tally) = (SampleRng::new(seed, 0, 0, 0), Tally::default());
        while tally.tried < 10_000 {
            for _ in 0..8 {
                tally.tried += 1;
                tally.bad[0] += u64::from(rng.chance(rate));
            }
            if tally.check_so_far(limit).is_err() {
                return Some(tally.tried);
            }
        }
        None
    }

    #[test]
    fn data_within_the_limit_do_not_fail_by_chance() {
        for seed in 0..40 {
            for rate in [0.005, 0.008] {
                assert_eq!(fails_after(rate, 0.01, seed), None, "{rate}, {seed}");
            }
        }
    }

    #[test]
    fn data_far_above_it_fail_soon() {
        for seed in 0..20 {
            for (rate, within) in [(1.0, 8), (0.5, 24), (0.1, 200), (0.03, 3_000)] {
                let after = fails_after(rate, 0.01, seed);
                assert!(
                    after.is_some_and(|after| after <= within),
                    "{rate}, {seed}: {after:?}"
                );
            }
        }
    }

    #[test]
    fn an_epoch_is_judged_without_slack_and_zero_means_none() {
        let tally = |bad, tried| Tally {
            tried,
            bad: [bad, 0, 0, 0, 0, 0],
            first: Vec::new(),
        };
        assert!(tally(2, 100).check_so_far(0.01).is_ok());
        assert!(tally(2, 100).check_whole(0.01).is_err());
        assert!(tally(1, 100).check_whole(0.01).is_ok());
        assert!(tally(1, 1000).check_so_far(0.0).is_err());
        assert!(tally(0, 0).check_so_far(0.0).is_ok());
        assert!(tally(0, 0).check_whole(0.0).is_ok());
    }

    #[test]
    fn sums_keep_the_first_names() {
        let (mut sum, mut part) = (Tally::default(), Tally::default());
        part.tried = 15;
        for number in 0..15 {
            part.bad(format_args!("sample {number}"), &SampleError::NoImage);
        }
        sum.add(&part);
        sum.add(&part);
        assert_eq!((sum.tried, sum.bad[0], sum.first.len()), (30, 30, NAMED));
        assert!(sum.first[15].starts_with("sample 0: no image"));
    }

    #[test]
    fn the_fewer_may_be_bad_the_fewer_substitutes_are_tried() {
        let numbers = [0.0, 1e-30, 0.01, 0.1, 0.5, 0.99, 1.0].map(max_substitutes);
        assert_eq!(numbers, [0, 1, 10, 20, 67, 1000, 1000]);
    }
}
