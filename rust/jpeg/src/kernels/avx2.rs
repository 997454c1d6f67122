//! The operations on vectors of 256 bits, with AVX2. Only loads and stores access memory; each checks its bounds.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_epi16 as add16,
    _mm256_add_epi32 as add32, _mm256_and_si256 as and, _mm256_blendv_epi8,
    _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_loadu_si256, _mm256_madd_epi16 as madd, _mm256_mulhrs_epi16 as mulhrs,
    _mm256_mullo_epi16 as mullo, _mm256_or_si256 as or, _mm256_packs_epi16 as packs16,
    _mm256_packs_epi32 as packs32, _mm256_packus_epi16 as packus16, _mm256_permute2x128_si256,
    _mm256_permute4x64_epi64, _mm256_set1_epi8 as set8, _mm256_set1_epi16 as set16,
    _mm256_set1_epi32 as set32, _mm256_setzero_si256 as zero, _mm256_shuffle_epi8,
    _mm256_srav_epi32, _mm256_storeu_si256, _mm256_sub_epi16 as sub16, _mm256_sub_epi32 as sub32,
    _mm256_testz_si256, _mm256_unpackhi_epi8 as high8, _mm256_unpackhi_epi16 as high16,
    _mm256_unpackhi_epi32 as high32, _mm256_unpackhi_epi64 as high64, _mm256_unpacklo_epi8 as low8,
    _mm256_unpacklo_epi16 as low16, _mm256_unpacklo_epi32 as low32, _mm256_unpacklo_epi64 as low64,
    _mm256_xor_si256 as xor,
};

use super::{GREEN_BYTES, PLACES, RED_BYTES};

super::kernels!(
    __m256i,
    32,
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
);

#[inline]
#[target_feature(enable = "avx2")]
fn shift32(value: __m256i, bits: i32) -> __m256i {
    _mm256_srav_epi32(value, set32(bits))
}

#[inline]
#[target_feature(enable = "avx2")]
fn any(value: __m256i) -> bool {
    _mm256_testz_si256(value, value) == 0
}

#[inline]
#[target_feature(enable = "avx2")]
fn load8(bytes: &[u8]) -> __m256i {
    let bytes = &bytes[..32];
    // SAFETY: reads the slice's 32 bytes, unaligned.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load16(numbers: &[i16]) -> __m256i {
    let numbers = &numbers[..16];
    // SAFETY: reads the slice's 16 numbers of 2 bytes, unaligned.
    unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn repeat(numbers: &[i16]) -> __m256i {
    let numbers = &numbers[..8];
    // SAFETY: reads the slice's 8 numbers of 2 bytes, unaligned.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn repeat_bytes(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: reads the array's 16 bytes, unaligned.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Writes eight rows of 16 bytes, `stride` bytes apart. Each vector has two: the lower halves of its lanes, then the upper.
#[inline]
#[target_feature(enable = "avx2")]
fn store_rows(pairs: [__m256i; 4], out: &mut [u8], stride: usize) {
    let out = &mut out[..super::end_of_rows(stride, 16)];
    for (pair, both) in pairs.into_iter().enumerate() {
        let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(both);
        let halves = [_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both)];
        for (half, row) in halves.into_iter().enumerate() {
            // SAFETY: the last of the eight rows ends where the slice does, and the store needs no alignment.
            unsafe {
                let out = out.as_mut_ptr().add((2 * pair + half) * stride);
                _mm_storeu_si128(out.cast(), row);
            }
        }
    }
}

/// Writes 32 pixels of RGB.
#[inline]
#[target_feature(enable = "avx2")]
fn store_pixels(red: __m256i, green: __m256i, blue: __m256i, out: &mut [u8; 96]) {
    // A lane has the 48 bytes of 16 pixels. A shuffle moves each to its final position in one of the three vectors.
    let red = _mm256_shuffle_epi8(red, repeat_bytes(&PLACES[0]));
    let green = _mm256_shuffle_epi8(green, repeat_bytes(&PLACES[1]));
    let blue = _mm256_shuffle_epi8(blue, repeat_bytes(&PLACES[2]));
    let mut joined = [red; 3];
    for (part, joined) in joined.iter_mut().enumerate() {
        let two = _mm256_blendv_epi8(blue, green, repeat_bytes(&GREEN_BYTES[part]));
        *joined = _mm256_blendv_epi8(two, red, repeat_bytes(&RED_BYTES[part]));
    }
    let [first, second, third] = joined;
    let parts = [
        _mm256_permute2x128_si256::<0x20>(first, second),
        _mm256_permute2x128_si256::<0x30>(third, first),
        _mm256_permute2x128_si256::<0x31>(second, third),
    ];
    for (part, out) in parts.into_iter().zip(out.as_chunks_mut::<32>().0) {
        // SAFETY: writes the array's 32 bytes, unaligned.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), part) }
    }
}
