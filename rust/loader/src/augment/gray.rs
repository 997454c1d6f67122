//! Brightness of a pixel as PIL's mode `L` has it, and pictures without colour.

#[cfg(target_arch = "x86_64")]
use super::avx512;

/// PIL's `L` of an RGB pixel: ITU-R 601-2 weights in 16-bit fixed point, rounded.
pub(super) fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16)
        as u8
}

/// Replaces each pixel of packed RGB by its brightness, three times.
pub fn gray(pixels: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        // SAFETY: the processor has the features that the kernel is compiled for.
        return unsafe { avx512::colour::gray(pixels) };
    }
    portable_gray(pixels);
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
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        // SAFETY: the processor has the features that the kernel is compiled for.
        return unsafe { avx512::colour::luma_sum(pixels) };
    }
    portable_luma_sum(pixels)
}

/// The portable kernel of [`luma_sum`].
pub(super) fn portable_luma_sum(pixels: &[u8]) -> u64 {
    pixels
        .chunks_exact(3)
        .map(|pixel| u64::from(luma(pixel[0], pixel[1], pixel[2])))
        .sum()
}
