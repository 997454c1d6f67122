//! The shift of hue as torchvision does it on PIL images: to PIL's 8-bit HSV, add to the hue, and back.

use super::level::{Level, level};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Turns the hue of packed RGB pixels by `shift` turns (-0.5 to 0.5), as torchvision's `adjust_hue` on PIL images.
pub fn adjust_hue(pixels: &mut [u8], shift: f32) {
    let shift = hue_steps(shift);
    match level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the features that the kernel is compiled for.
        Level::Avx512 => unsafe { avx512::colour::shift_hue(pixels, shift) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: likewise.
        Level::Avx2 => unsafe { avx2::colour::shift_hue(pixels, shift) },
        Level::Portable => shift_hue(pixels, shift),
    }
}

/// The portable kernel of [`adjust_hue`].
pub(super) fn shift_hue(pixels: &mut [u8], shift: u8) {
    for pixel in pixels.chunks_exact_mut(3) {
        let [hue, saturation, value] = rgb_to_hsv([pixel[0], pixel[1], pixel[2]]);
        pixel.copy_from_slice(&hsv_to_rgb([hue.wrapping_add(shift), saturation, value]));
    }
}

/// The shift in PIL's 255 steps a turn, cut towards zero, to be added modulo 256.
pub(super) fn hue_steps(shift: f32) -> u8 {
    (f64::from(shift) * 255.0) as i32 as u8
}

/// PIL's RGB to HSV. Which intermediate values are single and which double precision decides the last bit.
fn rgb_to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let (low, high) = (red.min(green).min(blue), red.max(green).max(blue));
    if low == high {
        return [0, 0, high];
    }
    let range = f32::from(high - low);
    let saturation = range / f32::from(high);
    let below = |sample: u8| f32::from(high - sample) / range;
    let hue = if red == high {
        below(blue) - below(green)
    } else if green == high {
        (2.0 + f64::from(below(red)) - f64::from(below(blue))) as f32
    } else {
        (4.0 + f64::from(below(green)) - f64::from(below(red))) as f32
    };
    // The remainder after division by 1, of a number below 2.
    let turn = f64::from(hue) / 6.0 + 1.0;
    let turn = (if turn >= 1.0 { turn - 1.0 } else { turn }) as f32;
    [
        (f64::from(turn) * 255.0) as u8,
        (f64::from(saturation) * 255.0) as u8,
        high,
    ]
}

/// PIL's HSV to RGB.
fn hsv_to_rgb([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let scaled = f64::from(hue) * 6.0 / 255.0;
    let sector = scaled as u8;
    let fraction = (scaled - f64::from(sector)) as f32;
    let strength = (f64::from(saturation) / 255.0) as f32;
    // Rounded: nothing here is negative, and adding a half is exact.
    let shade = |dark: f64| (f64::from(value) * (1.0 - dark) + 0.5) as u8;
    let p = shade(f64::from(strength));
    let q = shade(f64::from(strength * fraction));
    let t = shade(f64::from(strength) * (1.0 - f64::from(fraction)));
    match sector {
        0 | 6 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}
