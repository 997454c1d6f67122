//! The kernels for processors with AVX2 and FMA but without AVX-512. Each gives the same bytes as its portable version;
//! property tests check this.
//!
//! Only the functions of this file access memory. Each checks its bounds.

pub(super) mod colour;
pub(super) mod resize;

use std::arch::x86_64::*;

/// Loads 32 bytes from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8], at: usize) -> __m256i {
    let bytes = &bytes[at..at + 32];
    // SAFETY: the slice is 32 bytes long, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Loads 16 bytes from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
fn load_16(bytes: &[u8], at: usize) -> __m128i {
    let bytes = &bytes[at..at + 16];
    // SAFETY: the slice is 16 bytes long, and the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Writes 32 bytes from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
fn store(bytes: &mut [u8], at: usize, value: __m256i) {
    let bytes = &mut bytes[at..at + 32];
    // SAFETY: the slice is 32 bytes long, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), value) }
}

/// Writes the first 24 bytes of `value`.
#[inline]
#[target_feature(enable = "avx2")]
fn store_24(bytes: &mut [u8; 24], value: __m256i) {
    // SAFETY: 16 and 8 bytes of the 24 are written, and the stores need no alignment.
    unsafe {
        let at = bytes.as_mut_ptr();
        _mm_storeu_si128(at.cast(), _mm256_castsi256_si128(value));
        _mm_storel_epi64(at.add(16).cast(), _mm256_extracti128_si256::<1>(value));
    }
}

/// Loads four integers.
#[inline]
#[target_feature(enable = "avx2")]
fn load_4(values: &[i32; 4]) -> __m128i {
    // SAFETY: the array is 16 bytes long, and the load needs no alignment.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}
