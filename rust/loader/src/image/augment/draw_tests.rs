//! Tests: draws are within their limits and have torchvision's distributions.

use proptest::prelude::*;

use super::{AugmentDraw, CropBox, JitterDraw, draw};
use crate::config::AugmentConfig;
use crate::rng::SampleRng;

const DRAWS: usize = 40_000;

/// The draw of each sample, which depends only on its number.
fn draws(config: &AugmentConfig, width: u32, height: u32) -> Vec<AugmentDraw> {
    let one = |sample| draw(config, width, height, &mut SampleRng::new(7, 0, sample, 0));
    (0..DRAWS as u64).map(one).collect()
}

/// Whether a share of `DRAWS` is within five standard errors.
fn near(measured: f64, expected: f64) -> bool {
    (measured - expected).abs() < 5.0 * 0.5 / (DRAWS as f64).sqrt()
}

fn share(values: &[f64], holds: impl Fn(f64) -> bool) -> f64 {
    values.iter().filter(|value| holds(**value)).count() as f64 / values.len() as f64
}

/// Kolmogorov-Smirnov test for a uniform distribution between two bounds, at a level of 0.001.
#[track_caller]
fn assert_uniform(values: &[f64], low: f64, high: f64) {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let gap = |(rank, value): (usize, &f64)| {
        let expected = (value - low) / (high - low);
        let before = rank as f64 / count;
        (expected - before).abs().max((expected - before - 1.0 / count).abs())
    };
    let largest = values.iter().enumerate().map(gap).fold(0.0, f64::max);
    assert!(largest < 1.95 / count.sqrt(), "{largest} of {count}");
}

fn correlation(first: &[f64], second: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (a, b) = (mean(first), mean(second));
    let product = |x: &[f64], y: &[f64], a: f64, b: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - a) * (y - b)).sum()
    };
    product(first, second, a, b)
        / (product(first, first, a, a) * product(second, second, b, b)).sqrt()
}

/// No two columns correlate, and none correlates with itself one sample later.
#[track_caller]
fn assert_independent(columns: &[Vec<f64>]) {
    for (at, column) in columns.iter().enumerate() {
        let bound = 5.0 / (column.len() as f64).sqrt();
        let later = correlation(&column[1..], &column[..column.len() - 1]);
        assert!(later.abs() < bound, "column {at}: {later}");
        for (other, second) in columns.iter().enumerate().skip(at + 1) {
            let found = correlation(column, second);
            assert!(found.abs() < bound, "columns {at} and {other}: {found}");
        }
    }
}

#[test]
fn jitter_and_gray_are_drawn_independently() {
    let draws = draws(&AugmentConfig::default(), 500, 400);
    for (jitter, gray, expected) in
        [(true, true, 0.16), (true, false, 0.64), (false, true, 0.04), (false, false, 0.16)]
    {
        let found =
            draws.iter().filter(|draw| draw.jitter.is_some() == jitter && draw.gray == gray);
        let found = found.count() as f64 / DRAWS as f64;
        assert!(near(found, expected), "{jitter} {gray}: {found}");
    }
}

#[test]
fn jitter_factors_and_their_order_are_uniform() {
    let config = AugmentConfig {
        jitter: [0.32, 1.5, 0.1, 0.08],
        jitter_prob: 1.0,
        ..AugmentConfig::default()
    };
    let jitters: Vec<JitterDraw> =
        draws(&config, 500, 400).iter().filter_map(|draw| draw.jitter).collect();
    let column = |factor: fn(&JitterDraw) -> Option<f32>| -> Vec<f64> {
        let values = jitters.iter().map(|jitter| factor(jitter).unwrap());
        values.map(f64::from).collect()
    };
    let columns = [
        column(|jitter| jitter.brightness),
        column(|jitter| jitter.contrast),
        column(|jitter| jitter.saturation),
        column(|jitter| jitter.hue),
        column(|jitter| Some(f32::from(jitter.order[0]))),
    ];
    // A factor is never below 0.
    for (column, (low, high)) in
        columns.iter().zip([(0.68, 1.32), (0.0, 2.5), (0.9, 1.1), (-0.08, 0.08)])
    {
        assert_uniform(column, low, high);
    }
    assert_independent(&columns);
    let mut counts = std::collections::HashMap::new();
    for jitter in &jitters {
        *counts.entry(jitter.order).or_insert(0.0) += 1.0;
    }
    assert_eq!(counts.len(), 24);
    let expected = DRAWS as f64 / 24.0;
    let chi: f64 = counts.values().map(|count: &f64| (count - expected).powi(2) / expected).sum();
    // The 0.001 level for 23 degrees of freedom.
    assert!(chi < 49.7, "{chi}");
}

/// Area, log ratio, and position in the free columns and rows. The positions are spread over their pixel.
fn crop_columns(config: &AugmentConfig, width: u32, height: u32) -> [Vec<f64>; 4] {
    let draws = draws(config, width, height);
    let column =
        |value: &dyn Fn(CropBox) -> f64| draws.iter().map(|draw| value(draw.crop)).collect();
    let place =
        |at: u32, length: u32, whole: u32| (f64::from(at) + 0.5) / f64::from(whole - length + 1);
    let all = f64::from(width) * f64::from(height);
    [
        column(&|crop| f64::from(crop.width) * f64::from(crop.height) / all),
        column(&|crop| (f64::from(crop.width) / f64::from(crop.height)).ln()),
        column(&|crop| place(crop.x, crop.width, width)),
        column(&|crop| place(crop.y, crop.height, height)),
    ]
}

#[test]
fn crops_that_fit_are_uniform_in_area_ratio_and_position() {
    let config = AugmentConfig {
        crop_scale: (0.05, 0.25),
        crop_ratio: (0.5, 3.0),
        ..AugmentConfig::default()
    };
    // So large that rounding to pixels is negligible.
    let columns = crop_columns(&config, 1 << 15, 1 << 15);
    let bounds = [(0.05, 0.25), (0.5f64.ln(), 3f64.ln()), (0.0, 1.0), (0.0, 1.0)];
    for (column, (low, high)) in columns.iter().zip(bounds) {
        assert_uniform(column, low, high);
    }
    assert_independent(&columns);
}

/// Shares of the draws below bounds.
type Shares = &'static [(f64, f64)];

/// Images for which draws are repeated, and finally given up: the smallest share of the area, width and height. The expected
/// shares come from a million draws of torchvision's `RandomResizedCrop.get_params`.
const REPEATED: [(f64, u32, u32, [Shares; 4]); 2] = [
    (
        0.8,
        500,
        400,
        [
            &[(0.82, 0.1629), (0.86, 0.4450), (0.9, 0.6723), (0.95, 0.8838), (0.999, 0.9656)],
            &[(1.0, 0.0), (1.1, 0.1156), (1.2, 0.4250), (1.26, 0.7247), (1.3, 0.8874)],
            &[(0.1, 0.0925), (0.3, 0.2871), (0.49, 0.4667), (0.51, 0.5334), (0.8, 0.8089)],
            &[(0.1, 0.0838), (0.3, 0.2815), (0.49, 0.4475), (0.51, 0.5502), (0.8, 0.8141)],
        ],
    ),
    (
        0.4,
        640,
        300,
        [
            &[(0.42, 0.1380), (0.46, 0.3695), (0.5, 0.5437), (0.55, 0.6893), (0.6, 0.7604)],
            &[(0.9, 0.0107), (1.0, 0.0883), (1.1, 0.2349), (1.2, 0.4336), (1.3, 0.6793)],
            &[(0.1, 0.0765), (0.3, 0.2306), (0.49, 0.3770), (0.51, 0.6221), (0.8, 0.8461)],
            &[(0.1, 0.0661), (0.3, 0.2247), (0.49, 0.3571), (0.51, 0.6424), (0.8, 0.8523)],
        ],
    ),
];

#[test]
fn crops_that_often_do_not_fit_have_torchvisions_distribution() {
    for (least, width, height, shares) in REPEATED {
        let config = AugmentConfig { crop_scale: (least, 1.0), ..AugmentConfig::default() };
        let columns = crop_columns(&config, width, height);
        for (at, (column, shares)) in columns.iter().zip(shares).enumerate() {
            for &(bound, expected) in shares {
                let bound = if at == 1 { bound.ln() } else { bound };
                let found = share(column, |value| value < bound);
                assert!(
                    near(found, expected),
                    "column {at} below {bound}: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn a_jitter_of_zero_draws_no_factor() {
    let config = AugmentConfig {
        jitter: [0.0, 0.2, 0.0, 0.0],
        jitter_prob: 1.0,
        gray_prob: 0.0,
        ..Default::default()
    };
    let draw = draw(&config, 50, 40, &mut SampleRng::new(0, 0, 0, 0));
    let jitter = draw.jitter.unwrap();
    assert_eq!((jitter.brightness, jitter.saturation, jitter.hue), (None, None, None));
    assert!(jitter.contrast.is_some() && !draw.gray);
}

#[test]
fn images_too_long_for_the_ratio_get_a_centre_crop() {
    let draw = draw(&AugmentConfig::default(), 1000, 10, &mut SampleRng::new(0, 0, 0, 0));
    assert_eq!(draw.crop, CropBox { x: 493, y: 0, width: 13, height: 10 });
}

proptest! {
    #[test]
    fn crops_and_factors_are_within_their_ranges(width in 1u32..3000, height in 1u32..3000, seed in any::<u64>()) {
        let config = AugmentConfig { crop_scale: (0.08, 1.0), ..AugmentConfig::default() };
        let draw = draw(&config, width, height, &mut SampleRng::new(seed, 0, 0, 0));
        let crop = draw.crop;
        prop_assert!(crop.width > 0 && crop.height > 0);
        prop_assert!(crop.x + crop.width <= width && crop.y + crop.height <= height);
        if let Some(jitter) = draw.jitter {
            let mut order = jitter.order;
            order.sort_unstable();
            prop_assert_eq!(order, [0, 1, 2, 3]);
            for factor in [jitter.brightness, jitter.contrast, jitter.saturation] {
                prop_assert!((0.68..=1.32).contains(&factor.unwrap()));
            }
            prop_assert!((-0.08..=0.08).contains(&jitter.hue.unwrap()));
        }
    }
}
