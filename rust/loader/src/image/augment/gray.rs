//! Brightness as in PIL's mode `L`, and conversion to grey.

use prolip_jpeg::level::{Level, level};

use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Replaces red, green and blue of each pixel by its brightness.
pub fn gray(pixels: &mut [u8]) {
    match level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the features that the kernel is compiled for.
        Level::Avx512 => unsafe { avx512::colour::gray(pixels) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: likewise.
        Level::Avx2 => unsafe { avx2::colour::gray(pixels) },
        _ => portable::gray(pixels),
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
        _ => portable::luma_sum(pixels),
    }
}
