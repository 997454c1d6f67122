//! The operations on vectors of 512 bits, with AVX-512 and VBMI.
//!
//! Only loads and stores access memory. Each checks its bounds.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm256_storeu_si256, _mm512_add_epi16 as add16,
    _mm512_add_epi32 as add32, _mm512_and_si512 as and, _mm512_broadcast_i32x4,
    _mm512_castsi512_si256, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
    _mm512_madd_epi16 as madd, _mm512_mask_permutexvar_epi8, _mm512_mulhrs_epi16 as mulhrs,
    _mm512_mullo_epi16 as mullo, _mm512_or_si512 as or, _mm512_packs_epi16 as packs16,
    _mm512_packs_epi32 as packs32, _mm512_packus_epi16 as packus16, _mm512_permutex2var_epi8,
    _mm512_permutexvar_epi64, _mm512_set_epi64, _mm512_set1_epi8 as set8,
    _mm512_set1_epi16 as set16, _mm512_set1_epi32 as set32, _mm512_setzero_si512 as zero,
    _mm512_srav_epi32, _mm512_storeu_si512, _mm512_sub_epi16 as sub16, _mm512_sub_epi32 as sub32,
    _mm512_test_epi64_mask, _mm512_unpackhi_epi8 as high8, _mm512_unpackhi_epi16 as high16,
    _mm512_unpackhi_epi32 as high32, _mm512_unpackhi_epi64 as high64, _mm512_unpacklo_epi8 as low8,
    _mm512_unpacklo_epi16 as low16, _mm512_unpacklo_epi32 as low32, _mm512_unpacklo_epi64 as low64,
    _mm512_xor_si512 as xor,
};

super::kernels!(
    __m512i,
    64,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt")]
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

/// Writes 64 pixels of RGB.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn store_pixels(red: __m512i, green: __m512i, blue: __m512i, out: &mut [u8; 192]) {
    for (part, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let places = load8(&PLACES[part]);
        let two = _mm512_permutex2var_epi8(red, places, green);
        let three = _mm512_mask_permutexvar_epi8(two, BLUES[part], places, blue);
        // SAFETY: the array is 64 bytes long, and the store needs no alignment.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), three) }
    }
}

/// The pixel of each byte in three vectors of RGB, plus 64 for green: the index into two vectors, red and green.
const PLACES: [[u8; 64]; 3] = bytes_of_rgb().0;
/// Which of the bytes are blue.
const BLUES: [u64; 3] = bytes_of_rgb().1;

const fn bytes_of_rgb() -> ([[u8; 64]; 3], [u64; 3]) {
    let (mut places, mut blues) = ([[0; 64]; 3], [0; 3]);
    let mut at = 0;
    while at < 192 {
        let (part, byte) = (at / 64, at % 64);
        places[part][byte] = (at / 3) as u8 + if at % 3 == 1 { 64 } else { 0 };
        blues[part] |= ((at % 3 == 2) as u64) << byte;
        at += 1;
    }
    (places, blues)
}
