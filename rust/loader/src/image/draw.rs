//! Draws augmentations of training images, as torchvision's `RandomResizedCrop`, `ColorJitter` and `RandomGrayscale` do.

use prolip_image::{AugmentDraw, CropBox, JitterDraw};

use crate::config::AugmentConfig;
use crate::rng::SampleRng;

pub fn draw(config: &AugmentConfig, width: u32, height: u32, rng: &mut SampleRng) -> AugmentDraw {
    let crop = draw_crop(config, width, height, rng);
    let jitter = rng.chance(config.jitter_prob).then(|| draw_jitter(config.jitter, rng));
    AugmentDraw { crop, jitter, gray: rng.chance(config.gray_prob) }
}

/// As [`draw`], with the crop's ratio in multiples of the image's own (timm's `RandomResizedCropToSequence`).
pub fn draw_native(
    config: &AugmentConfig,
    width: u32,
    height: u32,
    rng: &mut SampleRng,
) -> AugmentDraw {
    let own = f64::from(width) / f64::from(height);
    let (low, high) = config.crop_ratio;
    let config = AugmentConfig { crop_ratio: (low * own, high * own), ..config.clone() };
    draw(&config, width, height, rng)
}

fn draw_jitter(
    [brightness, contrast, saturation, hue]: [f64; 4],
    rng: &mut SampleRng,
) -> JitterDraw {
    let mut order = [0, 1, 2, 3];
    rng.shuffle(&mut order);
    let mut factor = |strength: f64| {
        (strength > 0.0).then(|| rng.range((1.0 - strength).max(0.0), 1.0 + strength) as f32)
    };
    let [brightness, contrast, saturation] =
        [factor(brightness), factor(contrast), factor(saturation)];
    let hue = (hue > 0.0).then(|| rng.range(-hue, hue) as f32);
    JitterDraw { brightness, contrast, saturation, hue, order }
}

const ATTEMPTS: usize = 10;

/// Uniform area and log-uniform aspect ratio within the configured limits, at a uniform position. After ten draws that don't fit,
/// the largest centred crop within the limits of the ratio.
fn draw_crop(config: &AugmentConfig, width: u32, height: u32, rng: &mut SampleRng) -> CropBox {
    let area = f64::from(width) * f64::from(height);
    let (low, high) = config.crop_ratio;
    for _ in 0..ATTEMPTS {
        let target = area * rng.range(config.crop_scale.0, config.crop_scale.1);
        let ratio = rng.range(low.ln(), high.ln()).exp();
        let crop_width = (target * ratio).sqrt().round_ties_even() as u32;
        let crop_height = (target / ratio).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
            let y = rng.below(height - crop_height + 1);
            let x = rng.below(width - crop_width + 1);
            return CropBox { x, y, width: crop_width, height: crop_height };
        }
    }
    let ratio = f64::from(width) / f64::from(height);
    let (mut crop_width, mut crop_height) = (width, height);
    if ratio < low {
        crop_height = (f64::from(width) / low).round_ties_even() as u32;
    } else if ratio > high {
        crop_width = (f64::from(height) * high).round_ties_even() as u32;
    }
    // The crop of an image one pixel wide would round to nothing.
    crop_width = crop_width.clamp(1, width.max(1));
    crop_height = crop_height.clamp(1, height.max(1));
    CropBox {
        x: (width - crop_width) / 2,
        y: (height - crop_height) / 2,
        width: crop_width,
        height: crop_height,
    }
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
