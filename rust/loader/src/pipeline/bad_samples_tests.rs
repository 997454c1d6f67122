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
    let bad_samples =
        |bad, tried| BadSamples { tried, by_reason: [bad, 0, 0, 0, 0, 0], examples: Vec::new() };
    assert!(bad_samples(2, 100).check_so_far(0.01).is_ok());
    assert!(bad_samples(2, 100).check_epoch(0.01).is_err());
    assert!(bad_samples(1, 100).check_epoch(0.01).is_ok());
    assert!(bad_samples(1, 1000).check_so_far(0.0).is_err());
    assert!(bad_samples(0, 0).check_so_far(0.0).is_ok());
    assert!(bad_samples(0, 0).check_epoch(0.0).is_ok());
}
