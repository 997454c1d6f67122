//! Pillow's fixed-point resampling, exactly, with 16-bit products.
//!
//! A weight has 22 fractional bits. In w = low + 4096 high, both halves fit in 16 signed bits. So the sum over taps of
//! sample * w is two sums of products, which `vpmaddwd` computes for two taps and eight lanes at a time. Everything is exact
//! modulo 2^32, and the sum fits in 32 bits.

use std::arch::x86_64::*;

use super::super::coefficients::{Coefficients, PRECISION_BITS, ROUNDING};
use super::super::crop_rows::CropRows;
use super::{load, load_4, load_16, store};

/// Rows that are processed together.
const QUAD: usize = 4;
/// Taps along a row that are processed together.
const TAPS: usize = 4;
/// Bits of a weight's lower half.
const LOW_BITS: i32 = 12;
/// Bytes of a vector of samples. No row may be shorter.
const BLOCK: usize = 32;

/// The weights of four taps of one output pixel. The first two are in the lower half of each vector.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Offset in the row of the 16 bytes with the samples.
    offset: usize,
    /// Indices in the 16 bytes of two red, two green and two blue samples, widened to 16 bits.
    places: __m256i,
    low: __m256i,
    high: __m256i,
}

/// Reused buffers.
#[derive(Debug, Default)]
pub(in super::super) struct Buffers {
    steps: Vec<Step>,
    pairs: Vec<[i32; 2]>,
    between: Vec<u8>,
}

/// Whether the kernels support rows of `width` pixels, resized to `outputs` pixels.
pub(in super::super) fn fits(width: u32, outputs: u32) -> bool {
    width.min(outputs) as usize * 3 >= BLOCK
}

/// The lower halves of four weights, then the upper halves, 16 bits each.
#[inline]
#[target_feature(enable = "avx2")]
fn halves(weights: __m128i) -> __m128i {
    let half = _mm_set1_epi32(1 << (LOW_BITS - 1));
    let low = _mm_and_si128(
        _mm_add_epi32(weights, half),
        _mm_set1_epi32((1 << LOW_BITS) - 1),
    );
    let low = _mm_sub_epi32(low, half);
    let high = _mm_srai_epi32::<LOW_BITS>(_mm_sub_epi32(weights, low));
    _mm_packs_epi32(low, high)
}

/// Up to four weights, followed by zeros.
#[inline]
fn first_4(weights: &[i32]) -> [i32; TAPS] {
    let mut four = [0; TAPS];
    let count = weights.len().min(TAPS);
    four[..count].copy_from_slice(&weights[..count]);
    four
}

/// Fills `steps` for rows of `row_bytes` bytes. Returns the number of steps per output.
#[inline]
#[target_feature(enable = "avx2")]
fn plan(columns: &Coefficients, row_bytes: usize, steps: &mut Vec<Step>) -> usize {
    const NONE: i8 = -128;
    let per_output = columns
        .counts
        .iter()
        .max()
        .map_or(1, |&most| (most as usize).div_ceil(TAPS).max(1));
    let low_lane = _mm_setr_epi8(
        0, NONE, 3, NONE, 1, NONE, 4, NONE, 2, NONE, 5, NONE, NONE, NONE, NONE, NONE,
    );
    let places = _mm256_set_m128i(_mm_add_epi8(low_lane, _mm_set1_epi16(6)), low_lane);
    // The indices of samples. Unused ones stay as they are.
    let moved = _mm256_andnot_si256(
        _mm256_cmpgt_epi8(_mm256_setzero_si256(), places),
        _mm256_set1_epi16(0x00FF),
    );
    let first_pair = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    let second_pair = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);
    steps.clear();
    for output in 0..columns.starts.len() {
        let (start, weights) = columns.taps(output);
        for step in 0..per_output {
            let weights = weights.get(step * TAPS..).unwrap_or(&[]);
            let halves = _mm256_castsi128_si256(halves(load_4(&first_4(weights))));
            let wanted = (start + step * TAPS) * 3;
            // The last steps of a row start earlier, so they don't read past its end. Indices beyond the 16 bytes belong to
            // taps without weight.
            let offset = wanted.min(row_bytes - 16);
            let shift = _mm256_set1_epi8((wanted - offset).min(15) as i8);
            steps.push(Step {
                offset,
                places: _mm256_add_epi8(places, _mm256_and_si256(shift, moved)),
                low: _mm256_permutevar8x32_epi32(halves, first_pair),
                high: _mm256_permutevar8x32_epi32(halves, second_pair),
            });
        }
    }
    per_output
}

/// Combines the sums of both halves, without rounding.
#[inline]
#[target_feature(enable = "avx2")]
fn join(low: __m256i, high: __m256i) -> __m256i {
    _mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(high), low)
}

/// The integer part of the sums, with Pillow's rounding.
#[inline]
#[target_feature(enable = "avx2")]
fn cut(sum: __m256i) -> __m256i {
    _mm256_srai_epi32::<{ PRECISION_BITS as i32 }>(_mm256_add_epi32(
        sum,
        _mm256_set1_epi32(ROUNDING),
    ))
}

/// One output pixel of four rows: red, green, blue and an unused byte for each.
#[inline]
#[target_feature(enable = "avx2")]
fn along_rows(rows: [&[u8]; QUAD], steps: &[Step]) -> [[u8; 4]; QUAD] {
    let mut sums = [[_mm256_setzero_si256(); 2]; QUAD];
    for step in steps {
        for (sums, row) in sums.iter_mut().zip(rows) {
            let bytes = _mm256_broadcastsi128_si256(load_16(row, step.offset));
            let samples = _mm256_shuffle_epi8(bytes, step.places);
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(samples, step.low));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(samples, step.high));
        }
    }
    let [a, b, c, d] = sums.map(|[low, high]| join(low, high));
    // The halves of a vector are sums over different taps.
    let both = |one, other| {
        let low = _mm256_permute2x128_si256::<0x20>(one, other);
        let high = _mm256_permute2x128_si256::<0x31>(one, other);
        cut(_mm256_add_epi32(low, high))
    };
    let packed = _mm256_packs_epi32(both(a, b), both(c, d));
    let packed = _mm256_packus_epi16(packed, packed);
    [
        _mm256_extract_epi32::<0>(packed).to_le_bytes(),
        _mm256_extract_epi32::<4>(packed).to_le_bytes(),
        _mm256_extract_epi32::<1>(packed).to_le_bytes(),
        _mm256_extract_epi32::<5>(packed).to_le_bytes(),
    ]
}

/// Weights in pairs: for each half, two 16-bit numbers in one integer.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs(weights: &[i32], out: &mut Vec<[i32; 2]>) {
    out.clear();
    for four in weights.chunks(TAPS) {
        let halves = halves(load_4(&first_4(four)));
        out.push([
            _mm_extract_epi32::<0>(halves),
            _mm_extract_epi32::<2>(halves),
        ]);
        if four.len() > 2 {
            out.push([
                _mm_extract_epi32::<1>(halves),
                _mm_extract_epi32::<3>(halves),
            ]);
        }
    }
}

/// Computes one row of the pass along the columns. `row` returns the `count` rows of the taps, at least as long as `out`.
#[inline]
#[target_feature(enable = "avx2")]
fn along_columns<'a>(
    row: impl Fn(usize) -> &'a [u8],
    count: usize,
    pairs: &[[i32; 2]],
    out: &mut [u8],
) {
    let zero = _mm256_setzero_si256();
    let mut at = 0;
    while at < out.len() {
        // The last block overlaps the previous one, so it does not read past the end of the rows.
        at = at.min(out.len() - BLOCK);
        let mut sums = [[zero; 2]; 4];
        for (pair, halves) in pairs.iter().enumerate() {
            let first = load(row(pair * 2), at);
            let second = load(row((pair * 2 + 1).min(count - 1)), at);
            let (left, right) = (
                _mm256_unpacklo_epi8(first, second),
                _mm256_unpackhi_epi8(first, second),
            );
            let samples = [
                _mm256_unpacklo_epi8(left, zero),
                _mm256_unpackhi_epi8(left, zero),
                _mm256_unpacklo_epi8(right, zero),
                _mm256_unpackhi_epi8(right, zero),
            ];
            let halves = halves.map(|half| _mm256_set1_epi32(half));
            for (sums, samples) in sums.iter_mut().zip(samples) {
                for (sum, half) in sums.iter_mut().zip(halves) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(samples, half));
                }
            }
        }
        let [a, b, c, d] = sums.map(|[low, high]| cut(join(low, high)));
        let packed = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        store(out, at, packed);
        at += BLOCK;
    }
}

/// Resizes along the rows first, then along the columns.
#[target_feature(enable = "avx2")]
pub(in super::super) fn rows_then_columns(
    source: CropRows<'_>,
    columns: &Coefficients,
    rows: &Coefficients,
    buffers: &mut Buffers,
    out: &mut [u8],
) {
    let Buffers {
        steps,
        pairs: row_pairs,
        between,
    } = buffers;
    let per_output = plan(columns, source.row_bytes, steps);
    let (first, end) = rows.input_range();
    let lanes = columns.starts.len() * 3;
    // One byte after the last pixel, because pixels are written as four bytes.
    let stride = lanes + 1;
    between.resize((end - first).next_multiple_of(QUAD) * stride, 0);
    for (quad, between) in between.chunks_exact_mut(stride * QUAD).enumerate() {
        // Rows after the last are not used, so any row will do.
        let quad_rows =
            [0, 1, 2, 3].map(|row| source.row((first + quad * QUAD + row).min(end - 1)));
        for (output, steps) in steps.chunks_exact(per_output).enumerate() {
            let pixels = along_rows(quad_rows, steps);
            for (row, pixel) in between.chunks_exact_mut(stride).zip(pixels) {
                row[output * 3..output * 3 + 4].copy_from_slice(&pixel);
            }
        }
    }
    for (index, out) in out.chunks_exact_mut(lanes).enumerate() {
        let (start, weights) = rows.taps(index);
        pairs(weights, row_pairs);
        let row = |tap: usize| &between[(start - first + tap) * stride..][..lanes];
        along_columns(row, weights.len(), row_pairs, out);
    }
}

/// Resizes along the columns first, then along the rows.
#[target_feature(enable = "avx2")]
pub(in super::super) fn columns_then_rows(
    source: CropRows<'_>,
    columns: &Coefficients,
    rows: &Coefficients,
    buffers: &mut Buffers,
    out: &mut [u8],
) {
    let Buffers {
        steps,
        pairs: row_pairs,
        between,
    } = buffers;
    let per_output = plan(columns, source.row_bytes, steps);
    let lanes = columns.starts.len() * 3;
    let row_bytes = source.row_bytes;
    between.resize(row_bytes * QUAD, 0);
    for (quad, out) in out.chunks_mut(lanes * QUAD).enumerate() {
        let count = out.len() / lanes;
        for (row, between) in between.chunks_exact_mut(row_bytes).take(count).enumerate() {
            let (start, weights) = rows.taps(quad * QUAD + row);
            pairs(weights, row_pairs);
            along_columns(
                |tap| source.row(start + tap),
                weights.len(),
                row_pairs,
                between,
            );
        }
        // The last outputs may have fewer than four rows. The others are not written.
        let quad_rows = [0, 1, 2, 3].map(|row| &between[row * row_bytes..][..row_bytes]);
        for (output, steps) in steps.chunks_exact(per_output).enumerate() {
            let pixels = along_rows(quad_rows, steps);
            for (row, pixel) in out.chunks_exact_mut(lanes).zip(pixels) {
                row[output * 3..output * 3 + 3].copy_from_slice(&pixel[..3]);
            }
        }
    }
}
