//! Hue shift as torchvision does it on PIL images, in PIL's 8-bit HSV.

use super::by_simd::by_simd;

/// torchvision's `adjust_hue` of packed RGB pixels, by `shift` turns (-0.5 to 0.5).
pub fn adjust_hue(pixels: &mut [u8], shift: f32) {
    let shift = hue_steps(shift);
    by_simd!(shift_hue(pixels, shift));
}

/// In PIL's 255 steps per turn, truncated towards zero, to be added modulo 256.
pub(super) fn hue_steps(shift: f32) -> u8 {
    (f64::from(shift) * 255.0) as i32 as u8
}
