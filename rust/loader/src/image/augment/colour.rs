//! Brightness, contrast and saturation as PIL's `ImageEnhance` has them: a blend with a degenerate picture
//! in single precision, cut (not rounded) to 8 bits.

use super::gray::luma_sum;
use super::level::{Level, level};
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Blends every sample with one constant through a table.
fn blend_with_constant(pixels: &mut [u8], constant: u8, factor: f32) {
    if factor == 1.0 {
        return;
    }
    let mut table = [0u8; 256];
    for (entry, sample) in table.iter_mut().zip(0..=255) {
        *entry = portable::blend(constant, sample, factor);
    }
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: the processor has the features that the kernel is compiled for.
        return unsafe { avx512::colour::look_up(pixels, &table) };
    }
    for sample in pixels {
        *sample = table[usize::from(*sample)];
    }
}

/// Multiplies the brightness of packed RGB pixels, as torchvision's `adjust_brightness` on PIL images.
pub fn adjust_brightness(pixels: &mut [u8], factor: f32) {
    blend_with_constant(pixels, 0, factor);
}

/// Spreads packed RGB pixels about their mean brightness, as torchvision's `adjust_contrast` on PIL images.
pub fn adjust_contrast(pixels: &mut [u8], factor: f32) {
    let count = pixels.len() / 3;
    if count == 0 {
        return;
    }
    let mean = luma_sum(pixels) as f64 / count as f64;
    blend_with_constant(pixels, (mean + 0.5) as u8, factor);
}

/// Spreads packed RGB pixels about their own brightness, as torchvision's `adjust_saturation` on PIL images.
pub fn adjust_saturation(pixels: &mut [u8], factor: f32) {
    if factor == 1.0 {
        return;
    }
    match level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the features that the kernel is compiled for.
        Level::Avx512 => unsafe { avx512::colour::saturate(pixels, factor) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: likewise.
        Level::Avx2 => unsafe { avx2::colour::saturate(pixels, factor) },
        Level::Portable => portable::saturate(pixels, factor),
    }
}
