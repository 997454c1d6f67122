//! Augmentation of training images: the pixels of torchvision's `RandomResizedCrop`, `ColorJitter` and `RandomGrayscale` on PIL
//! images with the same parameters.

use crate::resize::{Scratch, resize_box};
use crate::{
    CropBox, Filter, Rgb8, adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation, gray,
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JitterDraw {
    /// 1 changes nothing. `None` if it is not configured.
    pub brightness: Option<f32>,
    pub contrast: Option<f32>,
    pub saturation: Option<f32>,
    /// Hue shift in turns, from -0.5 to 0.5.
    pub hue: Option<f32>,
    /// 0 brightness, 1 contrast, 2 saturation, 3 hue.
    pub order: [u8; 4],
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AugmentDraw {
    pub crop: CropBox,
    pub jitter: Option<JitterDraw>,
    pub gray: bool,
}

impl AugmentDraw {
    /// Nothing but a crop.
    pub fn of(crop: CropBox) -> Self {
        Self { crop, jitter: None, gray: false }
    }
}

/// Crop, resize to `width` x `height`, colour jitter, grey. Writes `width * height * 3` bytes of packed RGB.
pub fn apply(
    image: &Rgb8,
    draw: &AugmentDraw,
    filter: Filter,
    size: [u32; 2],
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    resize_box(image, draw.crop, filter, size, scratch, out);
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
