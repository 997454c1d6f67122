//! Brightness, contrast and saturation as in PIL's `ImageEnhance`: a blend with a degenerate image in single precision,
//! truncated (not rounded) to 8 bits.

use super::by_simd::by_simd;
use super::gray::luma_sum;
use super::portable;
use super::slope::Slope;

fn blend_with_constant(pixels: &mut [u8], constant: u8, factor: f32) {
    if factor == 1.0 {
        return;
    }
    if let Some(slope) = Slope::of(factor) {
        return by_simd!(blend_with_constant(pixels, constant, slope));
    }
    let mut table = [0u8; 256];
    for (entry, sample) in table.iter_mut().zip(0..=255) {
        *entry = portable::blend(constant, sample, factor);
    }
    for sample in pixels {
        *sample = table[usize::from(*sample)];
    }
}

/// torchvision's `adjust_brightness` of packed RGB pixels.
pub fn adjust_brightness(pixels: &mut [u8], factor: f32) {
    blend_with_constant(pixels, 0, factor);
}

/// torchvision's `adjust_contrast`: around the mean brightness.
pub fn adjust_contrast(pixels: &mut [u8], factor: f32) {
    let count = pixels.len() / 3;
    if count == 0 {
        return;
    }
    let mean = luma_sum(pixels) as f64 / count as f64;
    blend_with_constant(pixels, (mean + 0.5) as u8, factor);
}

/// torchvision's `adjust_saturation`: each pixel around its own brightness.
pub fn adjust_saturation(pixels: &mut [u8], factor: f32) {
    if factor == 1.0 {
        return;
    }
    match Slope::of(factor) {
        Some(slope) => by_simd!(saturate(pixels, slope)),
        None => portable::saturate_by(pixels, factor),
    }
}
