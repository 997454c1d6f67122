//! Tests: draws are within their limits.

use proptest::prelude::*;

use super::{CropBox, draw};
use crate::config::AugmentConfig;
use crate::rng::SampleRng;

const AUGMENT: AugmentConfig = AugmentConfig {
    crop_scale: (0.8, 1.0),
    crop_ratio: (0.75, 4.0 / 3.0),
    jitter: [0.32, 0.32, 0.32, 0.08],
    jitter_prob: 0.8,
    gray_prob: 0.2,
};

#[test]
fn images_too_long_for_the_ratio_get_a_centre_crop() {
    let draw = draw(&AUGMENT, 1000, 10, &mut SampleRng::new(0, 0, 0, 0));
    assert_eq!(draw.crop, CropBox { x: 493, y: 0, width: 13, height: 10 });
}

proptest! {
    #[test]
    fn crops_and_factors_are_within_their_ranges(width in 1u32..3000, height in 1u32..3000, seed in any::<u64>()) {
        let config = AugmentConfig { crop_scale: (0.08, 1.0), ..AUGMENT };
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
