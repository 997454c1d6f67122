//! Brightness as in PIL's mode `L`, and conversion to grey.

use super::by_simd::by_simd;

pub fn gray(pixels: &mut [u8]) {
    by_simd!(gray(pixels));
}

pub(super) fn luma_sum(pixels: &[u8]) -> u64 {
    by_simd!(luma_sum(pixels))
}
