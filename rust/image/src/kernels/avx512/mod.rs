//! Operations on vectors of 64 bytes with AVX-512, for the colours.

use std::arch::x86_64::*;

use super::super::portable;
use super::super::slope::{SLOPE_BITS, Slope};
use super::{colour::colour, hue::hue, operations, planes::planes};

pub(in super::super) mod resize;

type V = __m512i;
type F = __m512;

const BYTES: usize = 64;

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(bytes: &[u8], at: usize) -> __m512i {
    let bytes = &bytes[at..at + 64];
    // SAFETY: reads the slice's 64 bytes, unaligned.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store(bytes: &mut [u8], at: usize, value: __m512i) {
    let bytes = &mut bytes[at..at + 64];
    // SAFETY: writes the slice's 64 bytes, unaligned.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store_first(bytes: &mut [u8], value: __m512i) {
    let mask = if bytes.len() >= 64 { u64::MAX } else { (1 << bytes.len()) - 1 };
    // SAFETY: the mask has a bit for bytes of the slice only, and no more than 64.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, value) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store_first_16(bytes: &mut [u8], value: __m128i) {
    let mask = if bytes.len() >= 16 { u16::MAX } else { (1 << bytes.len()) - 1 };
    // SAFETY: the mask has a bit for bytes of the slice only, and no more than 16.
    unsafe { _mm_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, value) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_16(values: &[i32; 16]) -> __m512i {
    // SAFETY: reads the array's 64 bytes, unaligned.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn load_up_to_4(values: &[i32]) -> __m128i {
    let mask = if values.len() >= 4 { 0xF } else { (1 << values.len()) - 1 };
    // SAFETY: the mask has a bit for integers of the slice only, and no more than 4.
    unsafe { _mm_maskz_loadu_epi32(mask, values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn repeat(part: &[u8; 16]) -> V {
    // SAFETY: reads the array's 16 bytes, unaligned.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(part.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load_pixels(pixels: &[u8; BYTES * 3]) -> [V; 3] {
    // Part i of a vector has a third of the pixels from 16 i on.
    let thirds = pixels.as_chunks::<16>().0;
    let load = |third: usize| {
        // SAFETY: each array is 16 bytes long, and the loads need no alignment.
        unsafe {
            let part = |part: usize| _mm_loadu_si128(thirds[3 * part + third].as_ptr().cast());
            let low = _mm256_set_m128i(part(1), part(0));
            let high = _mm256_set_m128i(part(3), part(2));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    };
    separate([load(0), load(1), load(2)])
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store_pixels(pixels: &mut [u8; BYTES * 3], channels: [V; 3]) {
    let places = pixels.as_chunks_mut::<16>().0;
    for (index, third) in join(channels).into_iter().enumerate() {
        let parts = [
            _mm512_castsi512_si128(third),
            _mm512_extracti32x4_epi32::<1>(third),
            _mm512_extracti32x4_epi32::<2>(third),
            _mm512_extracti32x4_epi32::<3>(third),
        ];
        for (part, value) in parts.into_iter().enumerate() {
            // SAFETY: writes the array's 16 bytes, unaligned.
            unsafe { _mm_storeu_si128(places[3 * part + index].as_mut_ptr().cast(), value) }
        }
    }
}

operations! { "avx512f,avx512bw,avx512vl";
    fn set8(value: u8) -> V { _mm512_set1_epi8(value as i8) }
    fn add8(a: V, b: V) -> V { _mm512_add_epi8(a, b) }
    fn sub8(a: V, b: V) -> V { _mm512_sub_epi8(a, b) }
    fn sub8_to_zero(a: V, b: V) -> V { _mm512_subs_epu8(a, b) }
    fn max8(a: V, b: V) -> V { _mm512_max_epu8(a, b) }
    fn min8(a: V, b: V) -> V { _mm512_min_epu8(a, b) }
    fn equal8(a: V, b: V) -> V { _mm512_movm_epi8(_mm512_cmpeq_epi8_mask(a, b)) }
    fn shift_right8<const BITS: i32>(a: V) -> V { and(shift_right16::<BITS>(a), set8(255 >> BITS)) }
    fn and(a: V, b: V) -> V { _mm512_and_si512(a, b) }
    fn or(a: V, b: V) -> V { _mm512_or_si512(a, b) }
    fn select(mask: V, yes: V, no: V) -> V { _mm512_ternarylogic_epi32::<0xCA>(mask, yes, no) }
    fn look_up(table: V, index: V) -> V { _mm512_shuffle_epi8(table, _mm512_adds_epu8(index, set8(112))) }
    fn gather(part: V, places: V) -> V { _mm512_shuffle_epi8(part, places) }

    fn low16(a: V) -> V { _mm512_unpacklo_epi8(a, _mm512_setzero_si512()) }
    fn high16(a: V) -> V { _mm512_unpackhi_epi8(a, _mm512_setzero_si512()) }
    fn narrow16(low: V, high: V) -> V { _mm512_packus_epi16(low, high) }
    fn set16(value: i16) -> V { _mm512_set1_epi16(value) }
    fn add16(a: V, b: V) -> V { _mm512_add_epi16(a, b) }
    fn sub16(a: V, b: V) -> V { _mm512_sub_epi16(a, b) }
    fn mul16(a: V, b: V) -> V { _mm512_mullo_epi16(a, b) }
    fn mul_high16(a: V, b: V) -> V { _mm512_mulhi_epi16(a, b) }
    fn mul_fraction16(a: V, b: V) -> V { _mm512_mulhrs_epi16(a, b) }
    fn greater16(a: V, b: V) -> V { _mm512_movm_epi16(_mm512_cmpgt_epi16_mask(a, b)) }
    fn shift_right16<const BITS: i32>(a: V) -> V { _mm512_srl_epi16(a, _mm_cvtsi32_si128(BITS)) }
    fn shift_right_signed16<const BITS: i32>(a: V) -> V { _mm512_sra_epi16(a, _mm_cvtsi32_si128(BITS)) }

    fn low32(a: V) -> V { _mm512_unpacklo_epi16(a, _mm512_setzero_si512()) }
    fn high32(a: V) -> V { _mm512_unpackhi_epi16(a, _mm512_setzero_si512()) }
    fn narrow32(low: V, high: V) -> V { _mm512_packus_epi32(low, high) }
    fn set_single(value: f32) -> F { _mm512_set1_ps(value) }
    fn single(a: V) -> F { _mm512_cvtepi32_ps(a) }
    fn mul_single(a: F, b: F) -> F { _mm512_mul_ps(a, b) }
    fn div_single(a: F, b: F) -> F { _mm512_div_ps(a, b) }
    fn rounded(a: F) -> V { _mm512_cvtps_epi32(a) }
    fn whole(a: F) -> V { _mm512_cvttps_epi32(a) }

    fn add_bytes(sums: V, bytes: V) -> V { _mm512_add_epi64(sums, _mm512_sad_epu8(bytes, _mm512_setzero_si512())) }
    fn sum64(a: V) -> u64 { _mm512_reduce_add_epi64(a) as u64 }
}

planes! { "avx512f,avx512bw,avx512vl" }
colour! { "avx512f,avx512bw,avx512vl" }
hue! { "avx512f,avx512bw,avx512vl" }
