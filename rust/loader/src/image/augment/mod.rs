//! Augmentation of training images, and the evaluation transform. An augmentation is drawn first and applied later.
//!
//! The draws follow torchvision's `RandomResizedCrop`, `ColorJitter` and `RandomGrayscale`. The pixels equal bit for bit what
//! the same parameters give on PIL images. All vector kernels give the same results as the portable ones.

mod by_simd;
mod coefficients;
mod colour;
mod crop;
mod crop_rows;
mod gray;
mod hue;
mod kernels;
mod passes;
mod portable;
mod resize;
mod slope;

pub use colour::{adjust_brightness, adjust_contrast, adjust_saturation};
pub use gray::gray;
pub use hue::adjust_hue;
pub use resize::{Scratch, resize_box};

use crate::config::AugmentConfig;
use crate::image::rgb::{CropBox, Rgb8};
use crate::rng::SampleRng;
use resize::{Target, resize};

/// The factors of a colour jitter and their order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JitterDraw {
    /// Factor of brightness; 1 changes nothing. `None` if it is not configured.
    pub brightness: Option<f32>,
    pub contrast: Option<f32>,
    pub saturation: Option<f32>,
    /// Hue shift in turns, from -0.5 to 0.5.
    pub hue: Option<f32>,
    /// The order: 0 brightness, 1 contrast, 2 saturation, 3 hue.
    pub order: [u8; 4],
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AugmentDraw {
    pub crop: CropBox,
    pub jitter: Option<JitterDraw>,
    /// Whether the image is converted to grey.
    pub gray: bool,
}

pub fn draw(config: &AugmentConfig, width: u32, height: u32, rng: &mut SampleRng) -> AugmentDraw {
    let crop = crop::draw(config, width, height, rng);
    let jitter = rng.chance(config.jitter_prob).then(|| draw_jitter(config.jitter, rng));
    AugmentDraw { crop, jitter, gray: rng.chance(config.gray_prob) }
}

/// As [`draw`], with the ratio of the crop in multiples of the image's own (timm's `RandomResizedCropToSequence`).
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

/// Applies an augmentation: crop, bicubic resize to `width` x `height`, colour jitter, grey. Writes `width * height * 3` bytes of
/// packed RGB.
pub fn apply(
    image: &Rgb8,
    draw: &AugmentDraw,
    [width, height]: [u32; 2],
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    resize_box(image, draw.crop, width, height, scratch, out);
    if let Some(jitter) = &draw.jitter {
        colour_jitter(out, jitter);
    }
    if draw.gray {
        gray(out);
    }
}

pub fn colour_jitter(pixels: &mut [u8], jitter: &JitterDraw) {
    for step in jitter.order {
        match step {
            0 => jitter.brightness.into_iter().for_each(|factor| adjust_brightness(pixels, factor)),
            1 => jitter.contrast.into_iter().for_each(|factor| adjust_contrast(pixels, factor)),
            2 => jitter.saturation.into_iter().for_each(|factor| adjust_saturation(pixels, factor)),
            _ => jitter.hue.into_iter().for_each(|shift| adjust_hue(pixels, shift)),
        }
    }
}

/// The evaluation transform: bicubic resize of the shortest side to `size`, then the centre crop `size` x `size`, rounded as
/// in torchvision's `Resize` and `CenterCrop`. Writes `size * size * 3` bytes.
pub fn evaluate(image: &Rgb8, size: u32, scratch: &mut Scratch, out: &mut [u8]) {
    let (width, height) = (image.width(), image.height());
    let target = evaluation_target(width, height, size);
    let whole = CropBox::whole(width, height);
    resize(image, whole, target, scratch, out);
}

fn evaluation_target(width: u32, height: u32, size: u32) -> Target {
    let longer =
        |long: u32, short: u32| (f64::from(size) * f64::from(long) / f64::from(short)) as u32;
    let (new_width, new_height) =
        if width <= height { (size, longer(height, width)) } else { (longer(width, height), size) };
    let offset = |length: u32| (f64::from(length - size) / 2.0).round_ties_even() as u32;
    Target {
        width: new_width,
        height: new_height,
        window: CropBox { x: offset(new_width), y: offset(new_height), width: size, height: size },
    }
}

#[cfg(test)]
mod draw_tests;
#[cfg(test)]
mod tests;
