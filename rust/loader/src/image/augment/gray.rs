//! Brightness as in PIL's mode `L`, and conversion to grey.

use super::by_level::by_level;

/// Replaces red, green and blue of each pixel by its brightness.
pub fn gray(pixels: &mut [u8]) {
    by_level!(gray(pixels));
}

/// The sum of the brightness of all pixels.
pub(super) fn luma_sum(pixels: &[u8]) -> u64 {
    by_level!(luma_sum(pixels))
}
