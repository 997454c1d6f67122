//! Colour kernels for sixteen pixels at a time, in PIL's arithmetic.

use std::arch::x86_64::*;

use super::{load, load_first, store_48, store_first};

/// Bytes of the pixels that are processed together.
const BLOCK: usize = 48;
/// Pixels after which 32-bit sums of brightness are added to a wider sum.
const SUM_PIXELS: usize = 1 << 20;

/// The source of each byte of sixteen lanes: byte b of a lane comes from `channels[b]` of pixel `lane`.
const fn split_places(channels: [u8; 4]) -> [u8; 64] {
    let mut table = [0; 64];
    let mut at = 0;
    while at < 64 {
        table[at] = (at / 4) as u8 * 3 + channels[at % 4];
        at += 1;
    }
    table
}

/// The index of each of 48 bytes of packed RGB in the result of [`pack`].
const fn merge_places() -> [u8; 64] {
    let mut table = [0; 64];
    let mut at = 0;
    while at < BLOCK {
        let (pixel, channel) = (at / 3, at % 3);
        table[at] = (pixel / 4 * 16 + pixel % 4 + channel * 4) as u8;
        at += 1;
    }
    table
}

/// The index of each of 48 bytes of packed RGB among lanes of four bytes: R, G, B, unused.
const fn lane_places() -> [u8; 64] {
    let mut table = [0; 64];
    let mut at = 0;
    while at < BLOCK {
        table[at] = (at / 3 * 4 + at % 3) as u8;
        at += 1;
    }
    table
}

const RED: [u8; 64] = split_places([0, 0, 0, 0]);
const GREEN: [u8; 64] = split_places([1, 0, 0, 0]);
const BLUE: [u8; 64] = split_places([2, 0, 0, 0]);
const RED_GREEN: [u8; 64] = split_places([0, 0, 1, 0]);
const BLUE_GREEN: [u8; 64] = split_places([2, 0, 1, 0]);
const MERGE: [u8; 64] = merge_places();
const LANES: [u8; 64] = lane_places();

/// One channel of sixteen pixels as integers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn channel(pixels: __m512i, places: &[u8; 64]) -> __m512i {
    _mm512_maskz_permutexvar_epi8(0x1111_1111_1111_1111, load(places, 0), pixels)
}

/// PIL's `L` of sixteen pixels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn luma(pixels: __m512i) -> __m512i {
    let pairs = |places: &[u8; 64]| {
        _mm512_maskz_permutexvar_epi8(0x5555_5555_5555_5555, load(places, 0), pixels)
    };
    // The weight of green, 38470, does not fit in a signed 16-bit integer, so half of it is used twice.
    let red_green = _mm512_set1_epi32(19235 << 16 | 19595);
    let blue_green = _mm512_set1_epi32(19235 << 16 | 7471);
    let sum = _mm512_dpwssd_epi32(_mm512_set1_epi32(0x8000), pairs(&RED_GREEN), red_green);
    _mm512_srli_epi32::<16>(_mm512_dpwssd_epi32(sum, pairs(&BLUE_GREEN), blue_green))
}

/// Packs sixteen pixels from three vectors of integers, clamped to 0..=255.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn merge([red, green, blue]: [__m512i; 3]) -> __m512i {
    let packed = _mm512_packus_epi16(
        _mm512_packs_epi32(red, green),
        _mm512_packs_epi32(blue, blue),
    );
    _mm512_permutexvar_epi8(load(&MERGE, 0), packed)
}

/// Replaces every sample by its entry in the table.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(in super::super) fn look_up(pixels: &mut [u8], table: &[u8; 256]) {
    let parts = [0, 64, 128, 192].map(|at| load(table, at));
    for bytes in pixels.chunks_mut(64) {
        let samples = load_first(bytes);
        let low = _mm512_permutex2var_epi8(parts[0], samples, parts[1]);
        let high = _mm512_permutex2var_epi8(parts[2], samples, parts[3]);
        store_first(
            bytes,
            _mm512_mask_blend_epi8(_mm512_movepi8_mask(samples), low, high),
        );
    }
}

/// The sum of PIL's `L` over all pixels.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
pub(in super::super) fn luma_sum(pixels: &[u8]) -> u64 {
    let mut total = 0;
    for part in pixels.chunks(SUM_PIXELS * 3) {
        let mut sums = _mm512_setzero_si512();
        for block in part.chunks(BLOCK) {
            // Missing pixels are black and add nothing.
            sums = _mm512_add_epi32(sums, luma(load_first(block)));
        }
        total += _mm512_reduce_add_epi32(sums) as u64;
    }
    total
}

/// Replaces each pixel by its brightness.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
pub(in super::super) fn gray(pixels: &mut [u8]) {
    for block in pixels.chunks_mut(BLOCK) {
        let level = luma(load_first(block));
        store_48(block, merge([level; 3]));
    }
}

/// Blends each pixel with its brightness.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
pub(in super::super) fn saturate(pixels: &mut [u8], factor: f32) {
    let factor = _mm512_set1_ps(factor);
    for block in pixels.chunks_mut(BLOCK) {
        let samples = load_first(block);
        let level = luma(samples);
        let base = _mm512_cvtepi32_ps(level);
        let blended = [&RED, &GREEN, &BLUE].map(|places| {
            let difference = _mm512_cvtepi32_ps(_mm512_sub_epi32(channel(samples, places), level));
            // Two roundings, as in PIL. A fused multiply-add would give other values.
            _mm512_cvttps_epi32(_mm512_add_ps(base, _mm512_mul_ps(factor, difference)))
        });
        store_48(block, merge(blended));
    }
}

/// Divides whole numbers up to 255, rounded as by the division instruction (all pairs are tested). Unspecified for a divisor
/// of 0.
#[inline]
#[target_feature(enable = "avx512f")]
fn divide(dividend: __m512, divisor: __m512) -> __m512 {
    let rough = _mm512_rcp14_ps(divisor);
    let error = _mm512_fnmadd_ps(divisor, rough, _mm512_set1_ps(1.0));
    let inverse = _mm512_fmadd_ps(rough, error, rough);
    let quotient = _mm512_mul_ps(dividend, inverse);
    let rest = _mm512_fnmadd_ps(divisor, quotient, dividend);
    _mm512_fmadd_ps(rest, inverse, quotient)
}

/// Divides by 255, rounded as by the division instruction.
#[inline]
#[target_feature(enable = "avx512f")]
fn divide_by_255(dividend: __m512) -> __m512 {
    let inverse = _mm512_set1_ps(1.0 / 255.0);
    let quotient = _mm512_mul_ps(dividend, inverse);
    let rest = _mm512_fnmadd_ps(_mm512_set1_ps(255.0), quotient, dividend);
    _mm512_fmadd_ps(rest, inverse, quotient)
}

/// Hue (0..=255) and saturation (0..=255) of PIL's HSV, for pixels that are not grey.
#[inline]
#[target_feature(enable = "avx512f")]
fn hue_saturation([red, green, blue]: [__m512i; 3], high: __m512i) -> [__m512i; 2] {
    let low = _mm512_min_epi32(_mm512_min_epi32(red, green), blue);
    let sum = _mm512_add_epi32(_mm512_add_epi32(red, green), blue);
    let middle = _mm512_sub_epi32(_mm512_sub_epi32(sum, low), high);
    let range = _mm512_cvtepi32_ps(_mm512_sub_epi32(high, low));
    let below = divide(_mm512_cvtepi32_ps(_mm512_sub_epi32(high, middle)), range);
    // In PIL's formulas one of the two fractions is always 1, so the hue is a whole number plus or minus the other
    // fraction. The highest channel gives the whole number, the lowest channel the sign.
    let red_high = _mm512_cmpeq_epi32_mask(red, high);
    let green_high = _mm512_mask_cmpeq_epi32_mask(!red_high, green, high);
    let blue_high = !(red_high | green_high);
    let red_low = _mm512_cmpeq_epi32_mask(red, low);
    let green_low = _mm512_cmpeq_epi32_mask(green, low);
    let rising = (red_high & green_low) | (green_high & !red_low) | (blue_high & red_low);
    let base = _mm512_set1_ps(1.0);
    let base = _mm512_mask_mov_ps(base, red_high & green_low, _mm512_set1_ps(-1.0));
    let base = _mm512_mask_mov_ps(
        base,
        (green_high | blue_high) & red_low,
        _mm512_set1_ps(3.0),
    );
    let base = _mm512_mask_mov_ps(base, blue_high & !red_low, _mm512_set1_ps(5.0));
    let hue = _mm512_mask_add_ps(_mm512_sub_ps(base, below), rising, base, below);
    let turn = turns(hue);
    const CUT: i32 = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
    let steps = |share: __m512| {
        _mm512_cvttps_epi32(_mm512_mul_round_ps::<CUT>(share, _mm512_set1_ps(255.0)))
    };
    [steps(turn), steps(divide(range, _mm512_cvtepi32_ps(high)))]
}

/// Converts a hue in sixths of a turn (-1 to 5) to turns (0 to 1).
#[inline]
#[target_feature(enable = "avx512f")]
fn turns(hue: __m512) -> __m512 {
    let half = |part: __m256| {
        let turn = _mm512_fmadd_pd(
            _mm512_cvtps_pd(part),
            _mm512_set1_pd(1.0 / 6.0),
            _mm512_set1_pd(1.0),
        );
        let past = _mm512_cmp_pd_mask::<_CMP_GE_OQ>(turn, _mm512_set1_pd(1.0));
        _mm512_cvtpd_ps(_mm512_mask_sub_pd(turn, past, turn, _mm512_set1_pd(1.0)))
    };
    let bits = _mm512_castps_si512(hue);
    let low = half(_mm256_castsi256_ps(_mm512_castsi512_si256(bits)));
    let high = half(_mm256_castsi256_ps(_mm512_extracti64x4_epi64::<1>(bits)));
    _mm512_castsi512_ps(_mm512_inserti64x4::<1>(
        _mm512_castsi256_si512(_mm256_castps_si256(low)),
        _mm256_castps_si256(high),
    ))
}

/// Adds `shift` to the hue of each pixel, modulo 256.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(in super::super) fn shift_hue(pixels: &mut [u8], shift: u8) {
    let shift = _mm512_set1_epi32(i32::from(shift));
    // For each sixth of a turn, which of the bytes p, q, t, v become red, green, blue.
    const P: i32 = 0;
    const Q: i32 = 1;
    const T: i32 = 2;
    const V: i32 = 3;
    const fn order(red: i32, green: i32, blue: i32) -> i32 {
        red | green << 8 | blue << 16
    }
    let orders = _mm512_setr_epi32(
        order(V, T, P),
        order(Q, V, P),
        order(P, V, T),
        order(P, Q, V),
        order(T, P, V),
        order(V, P, Q),
        order(V, T, P),
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    );
    let lane_starts =
        _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0C0C_0C0C));
    let lane_places = load(&LANES, 0);
    for block in pixels.chunks_mut(BLOCK) {
        let samples = load_first(block);
        let colour = [&RED, &GREEN, &BLUE].map(|places| channel(samples, places));
        let high = _mm512_max_epi32(_mm512_max_epi32(colour[0], colour[1]), colour[2]);
        let [hue, saturation] = hue_saturation(colour, high);
        let hue = _mm512_and_epi32(_mm512_add_epi32(hue, shift), _mm512_set1_epi32(255));
        let [p, q, t, sector] = shades(hue, saturation, high);
        let shades = _mm512_or_epi32(
            _mm512_or_epi32(p, _mm512_slli_epi32::<8>(q)),
            _mm512_or_epi32(_mm512_slli_epi32::<16>(t), _mm512_slli_epi32::<24>(high)),
        );
        let places = _mm512_add_epi8(_mm512_permutexvar_epi32(sector, orders), lane_starts);
        let lanes = _mm512_shuffle_epi8(shades, places);
        store_48(block, _mm512_permutexvar_epi8(lane_places, lanes));
    }
}

/// The three darker levels p, q and t of PIL's HSV to RGB, and the sixth of the turn. For a saturation of 0 all three equal
/// the value, so grey pixels need no special case.
#[inline]
#[target_feature(enable = "avx512f")]
fn shades(hue: __m512i, saturation: __m512i, value: __m512i) -> [__m512i; 4] {
    const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    let sixths = _mm512_mullo_epi32(hue, _mm512_set1_epi32(6));
    let sector = _mm512_srli_epi32::<16>(_mm512_mullo_epi32(
        _mm512_add_epi32(sixths, _mm512_set1_epi32(1)),
        _mm512_set1_epi32(257),
    ));
    let rest = _mm512_sub_epi32(sixths, _mm512_mullo_epi32(sector, _mm512_set1_epi32(255)));
    let fraction = divide_by_255(_mm512_cvtepi32_ps(rest));
    let strength = divide_by_255(_mm512_cvtepi32_ps(saturation));
    let value = _mm512_cvtepi32_ps(value);
    // round(value - value * dark) is floor(value + 0.5 - value * dark). This is exact, because the product is not rounded and
    // the result is rounded down.
    let rounded = _mm512_add_ps(value, _mm512_set1_ps(0.5));
    let shade =
        |dark: __m512| _mm512_cvttps_epi32(_mm512_fnmadd_round_ps::<DOWN>(value, dark, rounded));
    [
        shade(strength),
        shade(_mm512_mul_ps(strength, fraction)),
        shade(_mm512_fnmadd_ps(strength, fraction, strength)),
        sector,
    ]
}
