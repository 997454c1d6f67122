//! Operations on vectors of 16 bytes with SSE4.1.

use std::arch::x86_64::*;

use super::super::portable;
use super::super::slope::{SLOPE_BITS, Slope};
use super::{colour::colour, hue::hue, operations, planes::planes, resize::resize};

type V = __m128i;
type F = __m128;
type Sum = __m128i;

const BYTES: usize = 16;
const PARTS: usize = 1;

#[inline]
#[target_feature(enable = "sse4.1")]
fn load(bytes: &[u8], at: usize) -> V {
    let bytes = &bytes[at..at + 16];
    // SAFETY: the slice is 16 bytes long, and the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn store(bytes: &mut [u8], at: usize, value: V) {
    let bytes = &mut bytes[at..at + 16];
    // SAFETY: the slice is 16 bytes long, and the store needs no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn repeat(part: &[u8; 16]) -> V {
    load(part, 0)
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn load_parts(rows: [&[u8]; PARTS], at: usize) -> V {
    load(rows[0], at)
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn store_parts(rows: &mut [u8], _stride: usize, at: usize, value: V) {
    store(rows, at, value);
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn load_pixels(pixels: &[u8; BYTES * 3]) -> [V; 3] {
    separate([load(pixels, 0), load(pixels, 16), load(pixels, 32)])
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn store_pixels(pixels: &mut [u8; BYTES * 3], channels: [V; 3]) {
    for (index, &third) in join(channels).iter().enumerate() {
        store(pixels, index * 16, third);
    }
}

operations! { "sse4.1";
    fn set8(value: u8) -> V { _mm_set1_epi8(value as i8) }
    fn add8(a: V, b: V) -> V { _mm_add_epi8(a, b) }
    fn sub8(a: V, b: V) -> V { _mm_sub_epi8(a, b) }
    fn sub8_to_zero(a: V, b: V) -> V { _mm_subs_epu8(a, b) }
    fn max8(a: V, b: V) -> V { _mm_max_epu8(a, b) }
    fn min8(a: V, b: V) -> V { _mm_min_epu8(a, b) }
    fn equal8(a: V, b: V) -> V { _mm_cmpeq_epi8(a, b) }
    fn shift_right8<const BITS: i32>(a: V) -> V { and(_mm_srli_epi16::<BITS>(a), set8(255 >> BITS)) }
    fn and(a: V, b: V) -> V { _mm_and_si128(a, b) }
    fn or(a: V, b: V) -> V { _mm_or_si128(a, b) }
    fn select(mask: V, yes: V, no: V) -> V { _mm_blendv_epi8(no, yes, mask) }
    fn look_up(table: V, index: V) -> V { _mm_shuffle_epi8(table, _mm_adds_epu8(index, set8(112))) }
    fn gather(part: V, places: V) -> V { _mm_shuffle_epi8(part, places) }

    fn low16(a: V) -> V { _mm_unpacklo_epi8(a, _mm_setzero_si128()) }
    fn high16(a: V) -> V { _mm_unpackhi_epi8(a, _mm_setzero_si128()) }
    fn narrow16(low: V, high: V) -> V { _mm_packus_epi16(low, high) }
    fn set16(value: i16) -> V { _mm_set1_epi16(value) }
    fn add16(a: V, b: V) -> V { _mm_add_epi16(a, b) }
    fn sub16(a: V, b: V) -> V { _mm_sub_epi16(a, b) }
    fn mul16(a: V, b: V) -> V { _mm_mullo_epi16(a, b) }
    fn mul_high16(a: V, b: V) -> V { _mm_mulhi_epi16(a, b) }
    fn mul_fraction16(a: V, b: V) -> V { _mm_mulhrs_epi16(a, b) }
    fn greater16(a: V, b: V) -> V { _mm_cmpgt_epi16(a, b) }
    fn shift_right16<const BITS: i32>(a: V) -> V { _mm_srli_epi16::<BITS>(a) }
    fn shift_right_signed16<const BITS: i32>(a: V) -> V { _mm_srai_epi16::<BITS>(a) }

    fn low32(a: V) -> V { _mm_unpacklo_epi16(a, _mm_setzero_si128()) }
    fn high32(a: V) -> V { _mm_unpackhi_epi16(a, _mm_setzero_si128()) }
    fn narrow32(low: V, high: V) -> V { _mm_packus_epi32(low, high) }
    fn add32(a: V, b: V) -> V { _mm_add_epi32(a, b) }
    fn set_single(value: f32) -> F { _mm_set1_ps(value) }
    fn single(a: V) -> F { _mm_cvtepi32_ps(a) }
    fn mul_single(a: F, b: F) -> F { _mm_mul_ps(a, b) }
    fn div_single(a: F, b: F) -> F { _mm_div_ps(a, b) }
    fn rounded(a: F) -> V { _mm_cvtps_epi32(a) }
    fn whole(a: F) -> V { _mm_cvttps_epi32(a) }

    fn add_bytes(sums: V, bytes: V) -> V { _mm_add_epi64(sums, _mm_sad_epu8(bytes, _mm_setzero_si128())) }
    fn sum64(a: V) -> u64 { (_mm_extract_epi64::<0>(a) + _mm_extract_epi64::<1>(a)) as u64 }

    fn low_in_turns(a: V, b: V) -> V { _mm_unpacklo_epi8(a, b) }
    fn high_in_turns(a: V, b: V) -> V { _mm_unpackhi_epi8(a, b) }
    fn start_sum(value: i32) -> Sum { _mm_set1_epi32(value) }
    fn start_upper() -> V { _mm_setzero_si128() }
    fn add_fours(sum: Sum, samples: V, even: V, odd: V) -> Sum {
        let sum = add_twos(sum, and(samples, set16(255)), even);
        add_twos(sum, shift_right16::<8>(samples), odd)
    }
    fn add_twos(sum: Sum, samples: V, weights: V) -> Sum { add32(sum, _mm_madd_epi16(samples, weights)) }
    fn add_upper_fours(upper: V, samples: V, weights: V) -> V { add16(upper, _mm_maddubs_epi16(samples, weights)) }
    fn add_upper_twos(upper: V, samples: V, weights: V) -> V { add_upper_fours(upper, samples, weights) }
    fn join_fours(sum: Sum, upper: V) -> Sum {
        add32(sum, _mm_slli_epi32::<16>(_mm_madd_epi16(upper, set16(1))))
    }
    fn join_twos([low, high]: [Sum; 2], upper: V) -> [Sum; 2] {
        let zero = _mm_setzero_si128();
        [
            add32(low, _mm_unpacklo_epi16(zero, upper)),
            add32(high, _mm_unpackhi_epi16(zero, upper)),
        ]
    }
    fn total(sum: Sum) -> V { sum }
    fn shift_right_signed32<const BITS: i32>(a: V) -> V { _mm_srai_epi32::<BITS>(a) }
    fn narrow_all([a, b, c, d]: [V; 4]) -> V { _mm_packus_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d)) }
}

planes! { "sse4.1" }
colour! { "sse4.1" }
hue! { "sse4.1" }
resize! { "sse4.1" }
