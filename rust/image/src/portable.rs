//! The colour kernels for any processor. The vector kernels use them for the last pixels.

use super::slope::Slope;

/// PIL's `L`: ITU-R 601-2 weights in 16-bit fixed point, rounded.
pub(super) fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16)
        as u8
}

pub(super) fn gray(pixels: &mut [u8]) {
    for pixel in pixels.chunks_exact_mut(3) {
        let level = luma(pixel[0], pixel[1], pixel[2]);
        pixel.fill(level);
    }
}

pub(super) fn luma_sum(pixels: &[u8]) -> u64 {
    pixels.chunks_exact(3).map(|pixel| u64::from(luma(pixel[0], pixel[1], pixel[2]))).sum()
}

/// PIL's `Image.blend`: `from` at factor 0, `to` at factor 1, extrapolated beyond.
pub(super) fn blend(from: u8, to: u8, factor: f32) -> u8 {
    // Truncates towards zero and saturates, as PIL's clipping does.
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}

#[inline(always)]
fn blend_whole(from: u8, to: u8, slope: Slope) -> u8 {
    let (from, to) = (i16::from(from), i16::from(to));
    (from + slope.times(to - from)).clamp(0, 255) as u8
}

/// Compiled for other processor features where it is used.
#[inline(always)]
pub(super) fn blend_with_constant(pixels: &mut [u8], constant: u8, slope: Slope) {
    for sample in pixels {
        *sample = blend_whole(constant, *sample, slope);
    }
}

pub(super) fn saturate(pixels: &mut [u8], slope: Slope) {
    for pixel in pixels.chunks_exact_mut(3) {
        let level = luma(pixel[0], pixel[1], pixel[2]);
        for sample in pixel {
            *sample = blend_whole(level, *sample, slope);
        }
    }
}

/// In single precision, for factors that have no [`Slope`].
pub(super) fn saturate_by(pixels: &mut [u8], factor: f32) {
    for pixel in pixels.chunks_exact_mut(3) {
        let level = luma(pixel[0], pixel[1], pixel[2]);
        for sample in pixel {
            *sample = blend(level, *sample, factor);
        }
    }
}

pub(super) fn shift_hue(pixels: &mut [u8], shift: u8) {
    for pixel in pixels.chunks_exact_mut(3) {
        let [hue, saturation, value] = rgb_to_hsv([pixel[0], pixel[1], pixel[2]]);
        pixel.copy_from_slice(&hsv_to_rgb([hue.wrapping_add(shift), saturation, value]));
    }
}

/// PIL's RGB to HSV. The last bit depends on which intermediate values have single and which double precision.
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
    // The fractional part of a number below 2.
    let turn = f64::from(hue) / 6.0 + 1.0;
    let turn = (if turn >= 1.0 { turn - 1.0 } else { turn }) as f32;
    [(f64::from(turn) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, high]
}

fn hsv_to_rgb([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let scaled = f64::from(hue) * 6.0 / 255.0;
    let sector = scaled as u8;
    let fraction = (scaled - f64::from(sector)) as f32;
    let strength = (f64::from(saturation) / 255.0) as f32;
    // Rounds to nearest: the values are not negative, and adding a half is exact.
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
