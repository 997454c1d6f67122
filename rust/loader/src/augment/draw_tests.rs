//! The draws: within their limits, and distributed as torchvision's.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{AugmentDraw, CropBox, JitterDraw, draw};
use crate::config::AugmentConfig;
use crate::rng::SampleRng;

#[test]
fn draws_follow_their_distributions() {
    let config = AugmentConfig::default();
    let draws: Vec<_> = (0..20_000)
        .map(|sample| draw(&config, 500, 400, &mut SampleRng::new(7, 0, sample, 0)))
        .collect();
    let mean =
        |f: &dyn Fn(&AugmentDraw) -> f64| draws.iter().map(f).sum::<f64>() / draws.len() as f64;
    // Five standard errors: the deviation of one draw is at most 0.5.
    let near =
        |measured: f64, expected: f64| (measured - expected).abs() < 5.0 * 0.5 / 20_000f64.sqrt();
    assert!(near(
        mean(&|draw| f64::from(u8::from(draw.jitter.is_some()))),
        0.8
    ));
    assert!(near(mean(&|draw| f64::from(u8::from(draw.gray))), 0.2));
    let jitters: Vec<_> = draws.iter().filter_map(|draw| draw.jitter).collect();
    let jitter_mean =
        |f: &dyn Fn(&JitterDraw) -> f64| jitters.iter().map(f).sum::<f64>() / jitters.len() as f64;
    assert!(near(
        jitter_mean(&|jitter| f64::from(jitter.contrast.unwrap())),
        1.0
    ));
    assert!(near(
        jitter_mean(&|jitter| f64::from(jitter.hue.unwrap())),
        0.0
    ));
    // Each operation comes first as often as another.
    assert!((0..4).all(|step| near(
        jitter_mean(&|jitter| f64::from(u8::from(jitter.order[0] == step))),
        0.25
    )));
    // Crops are accepted more often where they fit: the area is uniform among those that do, so its mean is near
    // 0.9 of the picture from below, and places are uniform.
    let area = mean(&|draw| f64::from(draw.crop.width) * f64::from(draw.crop.height) / 200_000.0);
    assert!((0.84..0.90).contains(&area), "{area}");
    let place = mean(&|draw| {
        let room = 500 - draw.crop.width;
        if room == 0 {
            0.5
        } else {
            f64::from(draw.crop.x) / f64::from(room)
        }
    });
    assert!(near(place, 0.5), "{place}");
}

#[test]
fn without_jitter_nothing_is_drawn_for_it() {
    let config = AugmentConfig {
        jitter: [0.0, 0.2, 0.0, 0.0],
        jitter_prob: 1.0,
        gray_prob: 0.0,
        ..Default::default()
    };
    let draw = draw(&config, 50, 40, &mut SampleRng::new(0, 0, 0, 0));
    let jitter = draw.jitter.unwrap();
    assert_eq!(
        (jitter.brightness, jitter.saturation, jitter.hue),
        (None, None, None)
    );
    assert!(jitter.contrast.is_some() && !draw.gray);
}

#[test]
fn pictures_too_long_for_the_ratio_are_cut_in_the_middle() {
    let draw = draw(
        &AugmentConfig::default(),
        1000,
        10,
        &mut SampleRng::new(0, 0, 0, 0),
    );
    assert_eq!(
        draw.crop,
        CropBox {
            x: 493,
            y: 0,
            width: 13,
            height: 10
        }
    );
}

proptest! {
    #[test]
    fn draws_fit_the_picture(width in 1u32..3000, height in 1u32..3000, seed in any::<u64>()) {
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
