//! Brightness, contrast and saturation as in PIL's `ImageEnhance`: a blend with a degenerate image in single precision,
//! truncated (not rounded) to 8 bits.

use prolip_jpeg::level::{Level, level};

use super::gray::luma_sum;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Blends every sample with a constant, using a lookup table.
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

/// Multiplies the brightness of packed RGB pixels, as torchvision's `adjust_brightness` does on PIL images.
pub fn adjust_brightness(pixels: &mut [u8], factor: f32) {
    blend_with_constant(pixels, 0, factor);
}

/// Scales packed RGB pixels around their mean brightness, as torchvision's `adjust_contrast` does on PIL images.
pub fn adjust_contrast(pixels: &mut [u8], factor: f32) {
    let count = pixels.len() / 3;
    if count == 0 {
        return;
    }
    let mean = luma_sum(pixels) as f64 / count as f64;
    blend_with_constant(pixels, (mean + 0.5) as u8, factor);
}

/// Scales each packed RGB pixel around its own brightness, as torchvision's `adjust_saturation` does on PIL images.
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
        _ => portable::saturate(pixels, factor),
    }
}
