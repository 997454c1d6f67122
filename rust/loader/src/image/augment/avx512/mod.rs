//! The resize for processors with AVX-512 (VNNI and VBMI: Ice Lake, Zen 4 and later). It gives the same bytes as the portable
//! version; a property test checks this.
//!
//! Only the functions of this file access memory. Each checks its bounds.

pub(super) mod resize;

use std::arch::x86_64::*;

/// Loads 64 bytes from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(bytes: &[u8], at: usize) -> __m512i {
    let bytes = &bytes[at..at + 64];
    // SAFETY: the slice is 64 bytes long, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Writes 64 bytes from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store(bytes: &mut [u8], at: usize, value: __m512i) {
    let bytes = &mut bytes[at..at + 64];
    // SAFETY: the slice is 64 bytes long, and the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}

/// Overwrites `bytes`, at most 64, with the first bytes of `value`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store_first(bytes: &mut [u8], value: __m512i) {
    let mask = if bytes.len() >= 64 {
        u64::MAX
    } else {
        (1 << bytes.len()) - 1
    };
    // SAFETY: the mask has a bit for bytes of the slice only, and no more than 64.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, value) }
}

/// Overwrites `bytes`, at most 16, with the first bytes of `value`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store_first_16(bytes: &mut [u8], value: __m128i) {
    let mask = if bytes.len() >= 16 {
        u16::MAX
    } else {
        (1 << bytes.len()) - 1
    };
    // SAFETY: the mask has a bit for bytes of the slice only, and no more than 16.
    unsafe { _mm_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, value) }
}

/// Loads up to four integers, followed by zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn load_up_to_4(values: &[i32]) -> __m128i {
    let mask = if values.len() >= 4 {
        0xF
    } else {
        (1 << values.len()) - 1
    };
    // SAFETY: the mask has a bit for integers of the slice only, and no more than 4.
    unsafe { _mm_maskz_loadu_epi32(mask, values.as_ptr()) }
}
