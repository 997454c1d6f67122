//! The kernels for processors with AVX-512 and VBMI.
//!
//! Only `load`, `store` and similar functions access memory. Each checks its bounds.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm256_storeu_si256, _mm512_add_epi16 as add16,
    _mm512_add_epi32 as add32, _mm512_broadcast_i32x4, _mm512_castsi512_si256,
    _mm512_cmpge_epu16_mask, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
    _mm512_madd_epi16 as madd, _mm512_mask_permutexvar_epi8, _mm512_mulhi_epi16 as mulhi,
    _mm512_mullo_epi16 as mullo, _mm512_packs_epi16 as packs16, _mm512_packs_epi32 as packs32,
    _mm512_packus_epi16 as packus16, _mm512_permutex2var_epi8, _mm512_permutexvar_epi8,
    _mm512_permutexvar_epi64, _mm512_set_epi64, _mm512_set1_epi8 as set8,
    _mm512_set1_epi16 as set16, _mm512_set1_epi32 as set32, _mm512_setzero_si512 as zero,
    _mm512_srai_epi16, _mm512_srav_epi32 as shift32, _mm512_storeu_si512,
    _mm512_sub_epi16 as sub16, _mm512_sub_epi32 as sub32, _mm512_unpackhi_epi8 as high8,
    _mm512_unpackhi_epi16 as high16, _mm512_unpackhi_epi32 as high32,
    _mm512_unpackhi_epi64 as high64, _mm512_unpacklo_epi8 as low8, _mm512_unpacklo_epi16 as low16,
    _mm512_unpacklo_epi32 as low32, _mm512_unpacklo_epi64 as low64, _mm512_xor_si512,
};

use super::islow::{USUAL, islow};
use super::pixels::{self, Memory};
use super::planes::{self, Source};
use super::scan::Group;

islow!(__m512i, "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi");

/// Decodes with these kernels.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt")]
pub(super) fn decode(source: Source<'_>, memory: &mut Memory, pixels: &mut [u8]) -> Option<()> {
    let strides = planes::fill(source, &mut memory.planes, |groups, steps, out, stride| {
        samples(groups, steps, out, stride)
    })?;
    pixels::make(
        source,
        memory,
        strides,
        pixels,
        |luma, blue, red, out| colours(luma, blue, red, out),
        |luma, out| grays(luma, out),
    );
    Some(())
}

/// Computes the samples of a row of groups: eight rows of `out`, `stride` bytes apart. Returns whether all coefficients are in the usual range.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn samples(groups: &[Group], steps: &[i16; 64], out: &mut [u8], stride: usize) -> bool {
    let steps: [__m512i; 8] = std::array::from_fn(|row| load_row(steps, row));
    let (usual, twice_usual) = (set16(USUAL), set16(2 * USUAL as u16 as i16));
    let apart = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
    let mut unusual = 0;
    for (number, group) in groups.iter().enumerate() {
        let rows: [__m512i; 8] =
            std::array::from_fn(|row| mullo(load_group(group, row), steps[row]));
        unusual |= _mm512_cmpge_epu16_mask(add16(rows[0], usual), twice_usual);
        let rows = transpose(one_pass(transpose(one_pass(rows, 11)), 18));
        for pair in 0..4 {
            let both = packs16(rows[2 * pair], rows[2 * pair + 1]);
            let both = _mm512_permutexvar_epi64(apart, _mm512_xor_si512(both, set8(-128)));
            let at = 2 * pair * stride + number * 32;
            store_half(out, at, _mm512_castsi512_si256(both));
            store_half(out, at + stride, _mm512_extracti64x4_epi64::<1>(both));
        }
    }
    unusual == 0
}

/// Converts luma and chroma to RGB, 64 pixels at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn colours(luma: &[u8], blue: &[u8], red: &[u8], out: &mut [u8]) {
    let places: [__m512i; 3] = std::array::from_fn(|part| load(&THIRDS[part], 0));
    let blues: [u64; 3] = std::array::from_fn(|part| BLUES[part]);
    for (number, out) in out.chunks_exact_mut(192).enumerate() {
        let (y, cb, cr) = (
            load(luma, number * 64),
            load(blue, number * 64),
            load(red, number * 64),
        );
        let [low, high] = [
            rgb(low8(y, zero()), low8(cb, zero()), low8(cr, zero())),
            rgb(high8(y, zero()), high8(cb, zero()), high8(cr, zero())),
        ];
        let [r, g, b] = std::array::from_fn(|channel| packus16(low[channel], high[channel]));
        for part in 0..3 {
            let two = _mm512_permutex2var_epi8(r, places[part], g);
            let three = _mm512_mask_permutexvar_epi8(two, blues[part], places[part], b);
            store(out, part * 64, three);
        }
    }
}

/// Red, green and blue of 32 pixels, not yet clamped to 8 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn rgb(luma: __m512i, blue: __m512i, red: __m512i) -> [__m512i; 3] {
    let (blue, red) = (sub16(blue, set16(128)), sub16(red, set16(128)));
    // Half of the upper 16 bits of a product, rounded, equals the rounded product with 16 fractional bits.
    let scaled =
        |twice, factor| _mm512_srai_epi16::<1>(add16(mulhi(twice, set16(factor)), set16(1)));
    let (twice_blue, twice_red) = (add16(blue, blue), add16(red, red));
    let r = add16(add16(luma, red), scaled(twice_red, pixels::RED));
    let b = add16(add16(luma, twice_blue), scaled(twice_blue, pixels::BLUE));
    let factors = set32(pixels::GREEN);
    let round = set32(1 << 15);
    let (low, high) = (
        add32(madd(low16(blue, red), factors), round),
        add32(madd(high16(blue, red), factors), round),
    );
    let green = packs32(shift32(low, set32(16)), shift32(high, set32(16)));
    let g = sub16(add16(luma, green), red);
    [r, g, b]
}

/// Copies luma to all three channels, 64 pixels at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn grays(luma: &[u8], out: &mut [u8]) {
    for (number, out) in out.chunks_exact_mut(192).enumerate() {
        let y = load(luma, number * 64);
        for (part, places) in PIXELS.iter().enumerate() {
            store(out, part * 64, _mm512_permutexvar_epi8(load(places, 0), y));
        }
    }
}

/// The pixel of each byte in three vectors of RGB.
const PIXELS: [[u8; 64]; 3] = bytes_of_rgb().0;
/// The same, plus 64 for green: the index into two vectors, red and green.
const THIRDS: [[u8; 64]; 3] = bytes_of_rgb().1;
/// Which of the bytes are blue.
const BLUES: [u64; 3] = bytes_of_rgb().2;

const fn bytes_of_rgb() -> ([[u8; 64]; 3], [[u8; 64]; 3], [u64; 3]) {
    let (mut pixels, mut thirds, mut blues) = ([[0; 64]; 3], [[0; 64]; 3], [0; 3]);
    let mut at = 0;
    while at < 192 {
        let (part, byte) = (at / 64, at % 64);
        pixels[part][byte] = (at / 3) as u8;
        thirds[part][byte] = (at / 3) as u8 + if at % 3 == 1 { 64 } else { 0 };
        blues[part] |= ((at % 3 == 2) as u64) << byte;
        at += 1;
    }
    (pixels, thirds, blues)
}

/// Loads 64 bytes from `at` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8], at: usize) -> __m512i {
    let bytes = &bytes[at..at + 64];
    // SAFETY: the slice is 64 bytes long, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Loads row `row` of four blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_group(group: &Group, row: usize) -> __m512i {
    let row = &group[row * 32..row * 32 + 32];
    // SAFETY: the slice is 32 numbers of 2 bytes long, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(row.as_ptr().cast()) }
}

/// Loads row `row` of a block, four times.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_row(block: &[i16; 64], row: usize) -> __m512i {
    let row = &block[row * 8..row * 8 + 8];
    // SAFETY: the slice is 8 numbers of 2 bytes long, and the load needs no alignment.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(row.as_ptr().cast()) })
}

/// Writes 64 bytes from `at` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(bytes: &mut [u8], at: usize, value: __m512i) {
    let bytes = &mut bytes[at..at + 64];
    // SAFETY: the slice is 64 bytes long, and the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}

/// Writes 32 bytes from `at` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_half(bytes: &mut [u8], at: usize, value: std::arch::x86_64::__m256i) {
    let bytes = &mut bytes[at..at + 32];
    // SAFETY: the slice is 32 bytes long, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), value) }
}
