//! Brightness of a pixel as PIL's mode `L` has it, and pictures without colour.

use super::level::{Level, level};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// PIL's `L` of an RGB pixel: ITU-R 601-2 weights in 16-bit fixed point, rounded.
pub(super) fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16)
        as u8
}

/// Replaces each pixel of packed RGB by its brightness, three times.
pub fn gray(pixels: &mut [u8]) {
    match level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the features that the kernel is compiled for.
        Level::Avx512 => unsafe { avx512::colour::gray(pixels) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: likewise.
        Level::Avx2 => unsafe { avx2::colour::gray(pixels) },
        Level::Portable => portable_gray(pixels),
    }
}

/// The portable kernel of [`gray`].
pub(super) fn portable_gray(pixels: &mut [u8]) {
    for pixel in pixels.chunks_exact_mut(3) {
        let level = luma(pixel[0], pixel[1], pixel[2]);
        pixel.fill(level);
    }
}

/// The sum of the brightness of all pixels.
pub(super) fn luma_sum(pixels: &[u8]) -> u64 {
    match level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the features that the kernel is compiled for.
        Level::Avx512 => unsafe { avx512::colour::luma_sum(pixels) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: likewise.
        Level::Avx2 => unsafe { avx2::colour::luma_sum(pixels) },
        Level::Portable => portable_luma_sum(pixels),
    }
}

/// The portable kernel of [`luma_sum`].
pub(super) fn portable_luma_sum(pixels: &[u8]) -> u64 {
    pixels
        .chunks_exact(3)
        .map(|pixel| u64::from(luma(pixel[0], pixel[1], pixel[2])))
        .sum()
}
