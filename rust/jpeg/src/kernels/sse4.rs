//! The operations on vectors of 128 bits, with SSSE3 and SSE4.1.
//!
//! Only loads and stores access memory. Each checks its bounds.

use std::arch::x86_64::{
    __m128i, _mm_add_epi16 as add16, _mm_add_epi32 as add32, _mm_and_si128 as and, _mm_blendv_epi8,
    _mm_cvtsi32_si128, _mm_loadu_si128, _mm_madd_epi16 as madd, _mm_mulhrs_epi16 as mulhrs,
    _mm_mullo_epi16 as mullo, _mm_or_si128 as or, _mm_packs_epi16 as packs16,
    _mm_packs_epi32 as packs32, _mm_packus_epi16 as packus16, _mm_set1_epi8 as set8,
    _mm_set1_epi16 as set16, _mm_set1_epi32 as set32, _mm_setzero_si128 as zero, _mm_shuffle_epi8,
    _mm_sra_epi32, _mm_storel_epi64, _mm_storeu_si128, _mm_sub_epi16 as sub16,
    _mm_sub_epi32 as sub32, _mm_testz_si128, _mm_unpackhi_epi8 as high8,
    _mm_unpackhi_epi16 as high16, _mm_unpackhi_epi32 as high32, _mm_unpackhi_epi64 as high64,
    _mm_unpacklo_epi8 as low8, _mm_unpacklo_epi16 as low16, _mm_unpacklo_epi32 as low32,
    _mm_unpacklo_epi64 as low64, _mm_xor_si128 as xor,
};

use super::{GREEN_BYTES, PLACES, RED_BYTES};

super::kernels!(
    __m128i,
    16,
    #[target_feature(enable = "ssse3,sse4.1,popcnt")]
);

#[inline]
#[target_feature(enable = "sse2")]
fn shift32(value: __m128i, bits: i32) -> __m128i {
    _mm_sra_epi32(value, _mm_cvtsi32_si128(bits))
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn any(value: __m128i) -> bool {
    _mm_testz_si128(value, value) == 0
}

#[inline]
#[target_feature(enable = "sse2")]
fn load8(bytes: &[u8]) -> __m128i {
    let bytes = &bytes[..16];
    // SAFETY: the slice is 16 bytes long, and the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load16(numbers: &[i16]) -> __m128i {
    let numbers = &numbers[..8];
    // SAFETY: the slice is 8 numbers of 2 bytes long, and the load needs no alignment.
    unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn repeat(numbers: &[i16]) -> __m128i {
    load16(numbers)
}

#[inline]
#[target_feature(enable = "sse2")]
fn store_rows(pairs: [__m128i; 4], out: &mut [u8], stride: usize) {
    let out = &mut out[..super::end_of_rows(stride, 8)];
    for (pair, both) in pairs.into_iter().enumerate() {
        for (half, row) in [both, high64(both, both)].into_iter().enumerate() {
            // SAFETY: the last of the eight rows ends where the slice does, and the store needs no alignment.
            unsafe {
                let out = out.as_mut_ptr().add((2 * pair + half) * stride);
                _mm_storel_epi64(out.cast(), row);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn store_pixels(red: __m128i, green: __m128i, blue: __m128i, out: &mut [u8; 48]) {
    // A shuffle moves each byte of a channel to its final position in one of the three vectors.
    let red = _mm_shuffle_epi8(red, load8(&PLACES[0]));
    let green = _mm_shuffle_epi8(green, load8(&PLACES[1]));
    let blue = _mm_shuffle_epi8(blue, load8(&PLACES[2]));
    for (part, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let two = _mm_blendv_epi8(blue, green, load8(&GREEN_BYTES[part]));
        let three = _mm_blendv_epi8(two, red, load8(&RED_BYTES[part]));
        // SAFETY: the array is 16 bytes long, and the store needs no alignment.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), three) }
    }
}
