//! The operations on vectors of 512 bits, with AVX-512.
//!
//! Only loads and stores access memory. Each checks its bounds.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm256_storeu_si256, _mm512_add_epi16 as add16,
    _mm512_add_epi32 as add32, _mm512_and_si512 as and, _mm512_broadcast_i32x4,
    _mm512_castsi512_si256, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
    _mm512_madd_epi16 as madd, _mm512_mask_blend_epi8, _mm512_mulhrs_epi16 as mulhrs,
    _mm512_mullo_epi16 as mullo, _mm512_or_si512 as or, _mm512_packs_epi16 as packs16,
    _mm512_packs_epi32 as packs32, _mm512_packus_epi16 as packus16, _mm512_permutex2var_epi64,
    _mm512_permutexvar_epi64, _mm512_set_epi64, _mm512_set1_epi8 as set8,
    _mm512_set1_epi16 as set16, _mm512_set1_epi32 as set32, _mm512_setzero_si512 as zero,
    _mm512_shuffle_epi8, _mm512_srav_epi32, _mm512_storeu_si512, _mm512_sub_epi16 as sub16,
    _mm512_sub_epi32 as sub32, _mm512_test_epi64_mask, _mm512_unpackhi_epi8 as high8,
    _mm512_unpackhi_epi16 as high16, _mm512_unpackhi_epi32 as high32,
    _mm512_unpackhi_epi64 as high64, _mm512_unpacklo_epi8 as low8, _mm512_unpacklo_epi16 as low16,
    _mm512_unpacklo_epi32 as low32, _mm512_unpacklo_epi64 as low64, _mm512_xor_si512 as xor,
};

use super::{GREEN_BYTES, PLACES, RED_BYTES};

super::kernels!(
    __m512i,
    64,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt")]
);

/// Each number of 32 bits, shifted right.
#[inline]
#[target_feature(enable = "avx512f")]
fn shift32(value: __m512i, bits: i32) -> __m512i {
    _mm512_srav_epi32(value, set32(bits))
}

/// Whether any bit is set.
#[inline]
#[target_feature(enable = "avx512f")]
fn any(value: __m512i) -> bool {
    _mm512_test_epi64_mask(value, value) != 0
}

/// Loads 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
fn load8(bytes: &[u8]) -> __m512i {
    let bytes = &bytes[..64];
    // SAFETY: the slice is 64 bytes long, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Loads 32 numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn load16(numbers: &[i16]) -> __m512i {
    let numbers = &numbers[..32];
    // SAFETY: the slice is 32 numbers of 2 bytes long, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) }
}

/// Loads 8 numbers into each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn repeat(numbers: &[i16]) -> __m512i {
    let numbers = &numbers[..8];
    // SAFETY: the slice is 8 numbers of 2 bytes long, and the load needs no alignment.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) })
}

/// Writes eight rows of 32 bytes, `stride` bytes apart: two of each vector, the lower and the upper halves of the lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_rows(pairs: [__m512i; 4], out: &mut [u8], stride: usize) {
    for (pair, both) in pairs.into_iter().enumerate() {
        let both = _mm512_permutexvar_epi64(_mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0), both);
        let halves = [
            _mm512_castsi512_si256(both),
            _mm512_extracti64x4_epi64::<1>(both),
        ];
        for (half, row) in halves.into_iter().enumerate() {
            let at = (2 * pair + half) * stride;
            let out = &mut out[at..at + 32];
            // SAFETY: the slice is 32 bytes long, and the store needs no alignment.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), row) }
        }
    }
}

/// Loads 16 bytes into each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn repeat_bytes(bytes: &[u8; 16]) -> __m512i {
    // SAFETY: the array is 16 bytes long, and the load needs no alignment.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Writes 64 pixels of RGB.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store_pixels(red: __m512i, green: __m512i, blue: __m512i, out: &mut [u8; 192]) {
    // Each lane has the 48 bytes of 16 pixels. A shuffle moves each byte to its final position in one of the three vectors.
    let red = _mm512_shuffle_epi8(red, repeat_bytes(&PLACES[0]));
    let green = _mm512_shuffle_epi8(green, repeat_bytes(&PLACES[1]));
    let blue = _mm512_shuffle_epi8(blue, repeat_bytes(&PLACES[2]));
    let mut joined = [red; 3];
    for (part, joined) in joined.iter_mut().enumerate() {
        let two = _mm512_mask_blend_epi8(GREENS[part], blue, green);
        *joined = _mm512_mask_blend_epi8(REDS[part], two, red);
    }
    let [first, second, third] = joined;
    // The lanes of the three vectors in turns. Lane i of the second vector has the number 4 + i.
    let parts = [
        lanes(lanes(first, [0, 4, 0, 1], second), [0, 1, 4, 3], third),
        lanes(lanes(second, [1, 0, 6, 2], first), [0, 5, 2, 3], third),
        lanes(lanes(third, [2, 7, 0, 3], first), [0, 1, 7, 3], second),
    ];
    for (part, out) in parts.into_iter().zip(out.as_chunks_mut::<64>().0) {
        // SAFETY: the array is 64 bytes long, and the store needs no alignment.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), part) }
    }
}

/// Four lanes of two vectors: those of `a` have the numbers 0 to 3, those of `b` 4 to 7.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(a: __m512i, numbers: [i64; 4], b: __m512i) -> __m512i {
    let [p, q, r, s] = numbers.map(|number| 2 * number);
    _mm512_permutex2var_epi64(
        a,
        _mm512_set_epi64(s + 1, s, r + 1, r, q + 1, q, p + 1, p),
        b,
    )
}

/// A bit for each byte of a vector whose lanes are alike: whether it is red, for each of the three vectors.
const REDS: [u64; 3] = in_all_lanes(&RED_BYTES);
/// Whether it is green.
const GREENS: [u64; 3] = in_all_lanes(&GREEN_BYTES);

const fn in_all_lanes(vectors: &[[u8; 16]; 3]) -> [u64; 3] {
    let (mut bits, mut at) = ([0; 3], 0);
    while at < 3 * 64 {
        let (part, byte) = (at / 64, at % 64);
        bits[part] |= ((vectors[part][byte % 16] != 0) as u64) << byte;
        at += 1;
    }
    bits
}
