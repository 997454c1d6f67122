//! Operations on vectors of 32 bytes with AVX2.

use std::arch::x86_64::*;

use super::super::portable;
use super::super::slope::{SLOPE_BITS, Slope};
use super::{colour::colour, hue::hue, operations, planes::planes, resize::resize};

type V = __m256i;
type F = __m256;
/// Four sums of products in each part.
type Sum = __m256i;

const BYTES: usize = 32;
const PARTS: usize = 2;

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8], at: usize) -> V {
    let bytes = &bytes[at..at + 32];
    // SAFETY: reads the slice's 32 bytes, unaligned.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(bytes: &mut [u8], at: usize, value: V) {
    let bytes = &mut bytes[at..at + 32];
    // SAFETY: writes the slice's 32 bytes, unaligned.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_part(bytes: &[u8], at: usize) -> __m128i {
    let bytes = &bytes[at..at + 16];
    // SAFETY: reads the slice's 16 bytes, unaligned.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_part(bytes: &mut [u8], at: usize, value: __m128i) {
    let bytes = &mut bytes[at..at + 16];
    // SAFETY: writes the slice's 16 bytes, unaligned.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) }
}

/// The same 16 bytes in each part.
#[inline]
#[target_feature(enable = "avx2")]
fn repeat(part: &[u8; 16]) -> V {
    _mm256_broadcastsi128_si256(load_part(part, 0))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_parts([one, other]: [&[u8]; PARTS], at: usize) -> V {
    _mm256_set_m128i(load_part(other, at), load_part(one, at))
}

/// Writes a part into each row, `stride` bytes apart.
#[inline]
#[target_feature(enable = "avx2")]
fn store_parts(rows: &mut [u8], stride: usize, at: usize, value: V) {
    store_part(rows, at, _mm256_castsi256_si128(value));
    store_part(rows, at + stride, _mm256_extracti128_si256::<1>(value));
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_pixels(pixels: &[u8; BYTES * 3]) -> [V; 3] {
    // The first half of the pixels in the first parts.
    let halves: [&[u8]; 2] = [pixels, &pixels[48..]];
    separate([load_parts(halves, 0), load_parts(halves, 16), load_parts(halves, 32)])
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_pixels(pixels: &mut [u8; BYTES * 3], channels: [V; 3]) {
    for (index, &third) in join(channels).iter().enumerate() {
        store_parts(pixels, 48, index * 16, third);
    }
}

operations! { "avx2";
    fn set8(value: u8) -> V { _mm256_set1_epi8(value as i8) }
    fn add8(a: V, b: V) -> V { _mm256_add_epi8(a, b) }
    fn sub8(a: V, b: V) -> V { _mm256_sub_epi8(a, b) }
    /// The difference, or 0 if that is negative.
    fn sub8_to_zero(a: V, b: V) -> V { _mm256_subs_epu8(a, b) }
    fn max8(a: V, b: V) -> V { _mm256_max_epu8(a, b) }
    fn min8(a: V, b: V) -> V { _mm256_min_epu8(a, b) }
    /// -1 where the bytes are equal, else 0.
    fn equal8(a: V, b: V) -> V { _mm256_cmpeq_epi8(a, b) }
    fn shift_right8<const BITS: i32>(a: V) -> V { and(_mm256_srli_epi16::<BITS>(a), set8(255 >> BITS)) }
    fn and(a: V, b: V) -> V { _mm256_and_si256(a, b) }
    fn or(a: V, b: V) -> V { _mm256_or_si256(a, b) }
    /// Bytes of `yes` where the mask is -1, of `no` where it is 0.
    fn select(mask: V, yes: V, no: V) -> V { _mm256_blendv_epi8(no, yes, mask) }
    /// Bytes of a table of 16. 0 for indices that are larger.
    fn look_up(table: V, index: V) -> V { _mm256_shuffle_epi8(table, _mm256_adds_epu8(index, set8(112))) }
    /// Moves bytes: byte i is the byte `places[i]` of the part, or 0 if that is 128.
    fn gather(part: V, places: V) -> V { _mm256_shuffle_epi8(part, places) }

    /// The first half of each part, widened to 16 bits.
    fn low16(a: V) -> V { _mm256_unpacklo_epi8(a, _mm256_setzero_si256()) }
    fn high16(a: V) -> V { _mm256_unpackhi_epi8(a, _mm256_setzero_si256()) }
    /// The reverse of [`low16`] and [`high16`], with numbers cut off at 0 and 255.
    fn narrow16(low: V, high: V) -> V { _mm256_packus_epi16(low, high) }
    fn set16(value: i16) -> V { _mm256_set1_epi16(value) }
    fn add16(a: V, b: V) -> V { _mm256_add_epi16(a, b) }
    fn sub16(a: V, b: V) -> V { _mm256_sub_epi16(a, b) }
    fn mul16(a: V, b: V) -> V { _mm256_mullo_epi16(a, b) }
    /// The upper half of the products of signed numbers.
    fn mul_high16(a: V, b: V) -> V { _mm256_mulhi_epi16(a, b) }
    /// Products of signed numbers, divided by 32768 and rounded.
    fn mul_fraction16(a: V, b: V) -> V { _mm256_mulhrs_epi16(a, b) }
    fn greater16(a: V, b: V) -> V { _mm256_cmpgt_epi16(a, b) }
    fn shift_right16<const BITS: i32>(a: V) -> V { _mm256_srli_epi16::<BITS>(a) }
    fn shift_right_signed16<const BITS: i32>(a: V) -> V { _mm256_srai_epi16::<BITS>(a) }

    fn low32(a: V) -> V { _mm256_unpacklo_epi16(a, _mm256_setzero_si256()) }
    fn high32(a: V) -> V { _mm256_unpackhi_epi16(a, _mm256_setzero_si256()) }
    /// The reverse of [`low32`] and [`high32`], with negative numbers as 0.
    fn narrow32(low: V, high: V) -> V { _mm256_packus_epi32(low, high) }
    fn add32(a: V, b: V) -> V { _mm256_add_epi32(a, b) }
    fn set_single(value: f32) -> F { _mm256_set1_ps(value) }
    fn single(a: V) -> F { _mm256_cvtepi32_ps(a) }
    fn mul_single(a: F, b: F) -> F { _mm256_mul_ps(a, b) }
    fn div_single(a: F, b: F) -> F { _mm256_div_ps(a, b) }
    /// The nearest integer, a negative number where there is none.
    fn rounded(a: F) -> V { _mm256_cvtps_epi32(a) }
    /// The integer part, a negative number where there is none.
    fn whole(a: F) -> V { _mm256_cvttps_epi32(a) }

    /// Adds the sum of some bytes to each 64-bit number.
    fn add_bytes(sums: V, bytes: V) -> V { _mm256_add_epi64(sums, _mm256_sad_epu8(bytes, _mm256_setzero_si256())) }
    /// The sum of all 64-bit numbers.
    fn sum64(a: V) -> u64 {
        let half = _mm_add_epi64(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
        (_mm_extract_epi64::<0>(half) + _mm_extract_epi64::<1>(half)) as u64
    }

    /// The bytes of `a` and `b` in turns: the first half of each part.
    fn low_in_turns(a: V, b: V) -> V { _mm256_unpacklo_epi8(a, b) }
    fn high_in_turns(a: V, b: V) -> V { _mm256_unpackhi_epi8(a, b) }
    fn start_sum(value: i32) -> Sum { _mm256_set1_epi32(value) }
    fn start_upper() -> V { _mm256_setzero_si256() }
    fn add_fours(sum: Sum, samples: V, even: V, odd: V) -> Sum {
        let sum = add_twos(sum, and(samples, set16(255)), even);
        add_twos(sum, shift_right16::<8>(samples), odd)
    }
    /// Adds the products of two 16-bit samples and their weights.
    fn add_twos(sum: Sum, samples: V, weights: V) -> Sum { add32(sum, _mm256_madd_epi16(samples, weights)) }
    /// Adds the products of four samples and their upper weights: two sums of 16 bits each.
    fn add_upper_fours(upper: V, samples: V, weights: V) -> V { add16(upper, _mm256_maddubs_epi16(samples, weights)) }
    fn add_upper_twos(upper: V, samples: V, weights: V) -> V { add_upper_fours(upper, samples, weights) }
    fn join_fours(sum: Sum, upper: V) -> Sum {
        add32(sum, _mm256_slli_epi32::<16>(_mm256_madd_epi16(upper, set16(1))))
    }
    fn join_twos([low, high]: [Sum; 2], upper: V) -> [Sum; 2] {
        let zero = _mm256_setzero_si256();
        [
            add32(low, _mm256_unpacklo_epi16(zero, upper)),
            add32(high, _mm256_unpackhi_epi16(zero, upper)),
        ]
    }
    fn total(sum: Sum) -> V { sum }
    fn shift_right_signed32<const BITS: i32>(a: V) -> V { _mm256_srai_epi32::<BITS>(a) }
    /// Four vectors of 32-bit numbers as bytes, cut off at 0 and 255: each part has four numbers of each vector.
    fn narrow_all([a, b, c, d]: [V; 4]) -> V { _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)) }
}

planes! { "avx2" }
colour! { "avx2" }
hue! { "avx2" }
resize! { "avx2" }
