//! Colour kernels for eight pixels at a time, in PIL's arithmetic.

use std::arch::x86_64::*;

use super::super::portable;
use super::{load_16, store_24};

/// Bytes of the pixels that are processed together.
const BLOCK: usize = 24;
/// Pixels after which 32-bit sums of brightness are added to a wider sum.
const SUM_PIXELS: usize = 1 << 20;

/// Red, green and blue of eight pixels as integers.
#[inline]
#[target_feature(enable = "avx2")]
fn split(block: &[u8; BLOCK]) -> [__m256i; 3] {
    // Four pixels per half: the first 12 bytes of one load, the last 12 of the other.
    let both = _mm256_set_m128i(load_16(block, 8), load_16(block, 0));
    let places = _mm256_setr_epi32(0, 3, 6, 9, 4, 7, 10, 13);
    let byte = _mm256_set1_epi32(0xFF);
    [0, 1, 2].map(|channel| {
        let places = _mm256_add_epi32(places, _mm256_set1_epi32(channel));
        _mm256_and_si256(_mm256_shuffle_epi8(both, places), byte)
    })
}

/// Packs eight pixels from integers whose first three bytes are red, green and blue.
#[inline]
#[target_feature(enable = "avx2")]
fn squeeze(pixels: __m256i, out: &mut [u8; BLOCK]) {
    let without_fourth = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1,
    ));
    let halves = _mm256_shuffle_epi8(pixels, without_fourth);
    let joined = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 7, 7);
    store_24(out, _mm256_permutevar8x32_epi32(halves, joined));
}

/// Packs eight pixels from red, green and blue, each within 0..=255.
#[inline]
#[target_feature(enable = "avx2")]
fn merge([red, green, blue]: [__m256i; 3], out: &mut [u8; BLOCK]) {
    let green_blue = _mm256_or_si256(_mm256_slli_epi32::<8>(green), _mm256_slli_epi32::<16>(blue));
    squeeze(_mm256_or_si256(red, green_blue), out);
}

/// PIL's `L` of eight pixels.
#[inline]
#[target_feature(enable = "avx2")]
fn luma([red, green, blue]: [__m256i; 3]) -> __m256i {
    let weighted = |channel, weight| _mm256_mullo_epi32(channel, _mm256_set1_epi32(weight));
    let sum = _mm256_add_epi32(weighted(red, 19595), weighted(green, 38470));
    let sum = _mm256_add_epi32(sum, weighted(blue, 7471));
    _mm256_srli_epi32::<16>(_mm256_add_epi32(sum, _mm256_set1_epi32(0x8000)))
}

/// The sum of PIL's `L` over all pixels.
#[target_feature(enable = "avx2")]
pub(in super::super) fn luma_sum(pixels: &[u8]) -> u64 {
    let (blocks, rest) = pixels.as_chunks::<BLOCK>();
    let mut total = portable::luma_sum(rest);
    for part in blocks.chunks(SUM_PIXELS) {
        let mut sums = _mm256_setzero_si256();
        for block in part {
            sums = _mm256_add_epi32(sums, luma(split(block)));
        }
        let half = _mm_add_epi32(
            _mm256_castsi256_si128(sums),
            _mm256_extracti128_si256::<1>(sums),
        );
        let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b00_00_11_10>(half));
        total += [
            _mm_extract_epi32::<0>(quarter),
            _mm_extract_epi32::<1>(quarter),
        ]
        .map(|sum| u64::from(sum as u32))
        .iter()
        .sum::<u64>();
    }
    total
}

/// Replaces each pixel by its brightness.
#[target_feature(enable = "avx2")]
pub(in super::super) fn gray(pixels: &mut [u8]) {
    let (blocks, rest) = pixels.as_chunks_mut::<BLOCK>();
    for block in blocks {
        let level = luma(split(block));
        merge([level; 3], block);
    }
    portable::gray(rest);
}

/// Blends each pixel with its brightness.
#[target_feature(enable = "avx2")]
pub(in super::super) fn saturate(pixels: &mut [u8], factor: f32) {
    let (blocks, rest) = pixels.as_chunks_mut::<BLOCK>();
    let factors = _mm256_set1_ps(factor);
    let most = _mm256_set1_ps(255.0);
    for block in blocks {
        let channels = split(block);
        let level = luma(channels);
        let base = _mm256_cvtepi32_ps(level);
        let blended = channels.map(|channel| {
            let difference = _mm256_cvtepi32_ps(_mm256_sub_epi32(channel, level));
            // Two roundings, as in PIL. A fused multiply-add would give other values.
            let sum = _mm256_add_ps(base, _mm256_mul_ps(factors, difference));
            let cut = _mm256_max_ps(_mm256_min_ps(sum, most), _mm256_setzero_ps());
            _mm256_cvttps_epi32(cut)
        });
        merge(blended, block);
    }
    portable::saturate(rest, factor);
}

/// Rounds a value down, given the nearest single `rounded` and the sign of its rounding `error`. The two can only differ if
/// the nearest single is a whole number.
#[inline]
#[target_feature(enable = "avx2")]
fn floor(rounded: __m256, error: __m256) -> __m256i {
    let whole = _mm256_cvttps_epi32(rounded);
    let is_whole = _mm256_cmp_ps::<_CMP_EQ_OQ>(_mm256_cvtepi32_ps(whole), rounded);
    let is_below = _mm256_cmp_ps::<_CMP_LT_OQ>(error, _mm256_setzero_ps());
    // A true comparison is -1.
    _mm256_add_epi32(
        whole,
        _mm256_castps_si256(_mm256_and_ps(is_whole, is_below)),
    )
}

/// Hue (0..=255) and saturation (0..=255) of PIL's HSV, for pixels that are not grey.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn hue_saturation([red, green, blue]: [__m256i; 3], high: __m256i) -> [__m256i; 2] {
    let low = _mm256_min_epi32(_mm256_min_epi32(red, green), blue);
    let sum = _mm256_add_epi32(_mm256_add_epi32(red, green), blue);
    let middle = _mm256_sub_epi32(_mm256_sub_epi32(sum, low), high);
    let range = _mm256_cvtepi32_ps(_mm256_sub_epi32(high, low));
    let below = _mm256_div_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(high, middle)), range);
    // In PIL's formulas one of the two fractions is always 1, so the hue is a whole number plus or minus the other
    // fraction. The highest channel gives the whole number, the lowest channel the sign.
    let equal = |one, other| _mm256_castsi256_ps(_mm256_cmpeq_epi32(one, other));
    let (red_high, red_low, green_low) = (equal(red, high), equal(red, low), equal(green, low));
    let green_high = _mm256_andnot_ps(red_high, equal(green, high));
    let red_or_green_high = _mm256_or_ps(red_high, green_high);
    let rising = {
        let red = _mm256_and_ps(red_high, green_low);
        let green = _mm256_andnot_ps(red_low, green_high);
        let blue = _mm256_andnot_ps(red_or_green_high, red_low);
        _mm256_or_ps(_mm256_or_ps(red, green), blue)
    };
    let base = {
        let red = _mm256_blendv_ps(_mm256_set1_ps(1.0), _mm256_set1_ps(-1.0), green_low);
        let green = _mm256_blendv_ps(_mm256_set1_ps(1.0), _mm256_set1_ps(3.0), red_low);
        let blue = _mm256_blendv_ps(_mm256_set1_ps(5.0), _mm256_set1_ps(3.0), red_low);
        let others = _mm256_blendv_ps(blue, green, green_high);
        _mm256_blendv_ps(others, red, red_high)
    };
    let sign = _mm256_andnot_ps(rising, _mm256_set1_ps(-0.0));
    let turn = turns(_mm256_add_ps(base, _mm256_xor_ps(below, sign)));
    let all = _mm256_set1_ps(255.0);
    let steps = |share: __m256| {
        let product = _mm256_mul_ps(share, all);
        floor(product, _mm256_fmsub_ps(share, all, product))
    };
    let saturation = _mm256_div_ps(range, _mm256_cvtepi32_ps(high));
    [steps(turn), steps(saturation)]
}

/// Converts a hue in sixths of a turn (-1 to 5) to turns (0 to 1).
#[inline]
#[target_feature(enable = "avx2,fma")]
fn turns(hue: __m256) -> __m256 {
    let one = _mm256_set1_pd(1.0);
    let half = |part: __m128| {
        let turn = _mm256_fmadd_pd(_mm256_cvtps_pd(part), _mm256_set1_pd(1.0 / 6.0), one);
        let past = _mm256_cmp_pd::<_CMP_GE_OQ>(turn, one);
        _mm256_cvtpd_ps(_mm256_sub_pd(turn, _mm256_and_pd(past, one)))
    };
    _mm256_set_m128(
        half(_mm256_extractf128_ps::<1>(hue)),
        half(_mm256_castps256_ps128(hue)),
    )
}

/// Adds `shift` to the hue of each pixel, modulo 256.
#[target_feature(enable = "avx2,fma")]
pub(in super::super) fn shift_hue(pixels: &mut [u8], shift: u8) {
    // For each sixth of a turn, which of the bytes p, q, t, v become red, green, blue.
    const P: i32 = 0;
    const Q: i32 = 1;
    const T: i32 = 2;
    const V: i32 = 3;
    const fn order(red: i32, green: i32, blue: i32) -> i32 {
        red | green << 8 | blue << 16
    }
    let orders = _mm256_setr_epi32(
        order(V, T, P),
        order(Q, V, P),
        order(P, V, T),
        order(P, Q, V),
        order(T, P, V),
        order(V, P, Q),
        order(V, T, P),
        0,
    );
    let lane_starts =
        _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0C0C_0C0C));
    let shifts = _mm256_set1_epi32(i32::from(shift));
    let (blocks, rest) = pixels.as_chunks_mut::<BLOCK>();
    for block in blocks {
        let channels = split(block);
        let high = _mm256_max_epi32(_mm256_max_epi32(channels[0], channels[1]), channels[2]);
        let [hue, saturation] = hue_saturation(channels, high);
        let hue = _mm256_and_si256(_mm256_add_epi32(hue, shifts), _mm256_set1_epi32(255));
        let [p, q, t, sector] = shades(hue, saturation, high);
        let shades = _mm256_or_si256(
            _mm256_or_si256(p, _mm256_slli_epi32::<8>(q)),
            _mm256_or_si256(_mm256_slli_epi32::<16>(t), _mm256_slli_epi32::<24>(high)),
        );
        let places = _mm256_add_epi8(_mm256_permutevar8x32_epi32(orders, sector), lane_starts);
        squeeze(_mm256_shuffle_epi8(shades, places), block);
    }
    portable::shift_hue(rest, shift);
}

/// The three darker levels p, q and t of PIL's HSV to RGB, and the sixth of the turn. For a saturation of 0 all three equal
/// the value, so grey pixels need no special case.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn shades(hue: __m256i, saturation: __m256i, value: __m256i) -> [__m256i; 4] {
    let all = _mm256_set1_ps(255.0);
    let sixths = _mm256_mullo_epi32(hue, _mm256_set1_epi32(6));
    let sector = _mm256_srli_epi32::<16>(_mm256_mullo_epi32(
        _mm256_add_epi32(sixths, _mm256_set1_epi32(1)),
        _mm256_set1_epi32(257),
    ));
    let rest = _mm256_sub_epi32(sixths, _mm256_mullo_epi32(sector, _mm256_set1_epi32(255)));
    let fraction = _mm256_div_ps(_mm256_cvtepi32_ps(rest), all);
    let strength = _mm256_div_ps(_mm256_cvtepi32_ps(saturation), all);
    let value = _mm256_cvtepi32_ps(value);
    // round(value - value * dark) is floor(value + 0.5 - value * dark). If the result is a whole number, its difference from
    // value + 0.5 is exact, and so is the sign of the error.
    let rounded = _mm256_add_ps(value, _mm256_set1_ps(0.5));
    let shade = |dark: __m256| {
        let result = _mm256_fnmadd_ps(value, dark, rounded);
        floor(
            result,
            _mm256_fnmadd_ps(value, dark, _mm256_sub_ps(rounded, result)),
        )
    };
    [
        shade(strength),
        shade(_mm256_mul_ps(strength, fraction)),
        shade(_mm256_fnmadd_ps(strength, fraction, strength)),
        sector,
    ]
}
