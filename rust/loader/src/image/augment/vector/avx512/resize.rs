//! Pillow's fixed-point resampling, exactly, with byte products.
//!
//! A weight has 22 fractional bits. With three signed digits in base 256, w = d0 + 256 d1 + 65536 d2, the sum over taps of
//! sample * w is three sums of byte products, which `vpdpbusd` computes for four taps and sixteen lanes at a time. Everything
//! is exact modulo 2^32, and the sum fits in 32 bits.
//!
//! The pass along the rows processes four rows at once. For each sample position it stores the bytes of the four rows side by
//! side, as the pass along the columns needs them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{load, load_up_to_4, repeat, store, store_first, store_first_16};
use crate::image::augment::coefficients::{Coefficients, PRECISION_BITS, ROUNDING};
use crate::image::augment::crop_rows::CropRows;
use crate::image::augment::passes::Passes;

/// Most output pixels that are computed together: one in each part of 128 bits. Three of its four lanes are the channels.
const MAX_GROUP: usize = 4;
/// Rows that are processed together.
const QUAD: usize = 4;
/// Signed base-256 digits of a weight.
const DIGITS: usize = 3;

/// The weights of four taps of one group of outputs.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Offset in the row of the 64 bytes with the samples.
    offset: usize,
    /// For each part, which four neighbouring integers of the 64 bytes have the four taps of its output.
    integers: __m512i,
    /// Where in these integers the taps of each lane are.
    places: __m512i,
    digits: [__m512i; DIGITS],
}

/// Reused buffers.
#[derive(Debug, Default)]
pub(in crate::image::augment) struct Buffers {
    steps: Vec<Step>,
    row_digits: Vec<[i32; DIGITS]>,
    between: Vec<u8>,
}

/// Weights for the pass along the rows: groups of outputs, each with the same number of steps.
struct Plan<'a> {
    steps: &'a [Step],
    steps_per_group: usize,
    group: usize,
    outputs: usize,
}

/// Whether the kernels support rows of this many pixels: a row must fill a vector.
pub(in crate::image::augment) fn fits(width: u32) -> bool {
    width as usize * 3 >= 64
}

/// The signed digits of four weights. Byte i of each 32-bit integer is its digit i.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn digits(weights: __m128i) -> __m128i {
    // Adding 128 to each byte carries if the digit would exceed 127. Flipping its high bit subtracts the 128 again.
    let half = _mm_set1_epi32(0x0080_8080);
    _mm_xor_si128(_mm_add_epi32(weights, half), half)
}

/// The digits of four weights of each output, from the weight `from` on: a part for each output.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn group_digits(columns: &Coefficients, outputs: Range<usize>, from: usize) -> __m512i {
    let mut parts = [_mm_setzero_si128(); MAX_GROUP];
    for (part, output) in parts.iter_mut().zip(outputs) {
        let weights = &columns.weights[output * columns.stride..][..columns.stride];
        *part = digits(load_up_to_4(weights.get(from..).unwrap_or(&[])));
    }
    let [a, b, c, d] = parts;
    let pair = |low, high| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(pair(a, b)), pair(c, d))
}

/// Prepares the pass along the rows, for rows of `row_bytes` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn plan<'a>(columns: &Coefficients, row_bytes: usize, steps: &'a mut Vec<Step>) -> Plan<'a> {
    let outputs = columns.starts.len();
    // As many as have four taps each in the 64 bytes.
    let fits = |near: &[u32]| (near[near.len() - 1] - near[0]) * 3 + 12 <= 64;
    let group = (2..=MAX_GROUP)
        .rev()
        .find(|&group| columns.starts.windows(group.min(outputs)).all(fits))
        .unwrap_or(1);
    let most = columns.counts.iter().copied().max().unwrap_or(0) as usize;
    let steps_per_group = most.div_ceil(4);
    let own_part = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    let neighbours = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 1, 2, 3));
    // The taps of a channel are three bytes apart. The fourth lane has any bytes.
    let taps = repeat(&[0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, 0, 0, 0, 0]);
    let to_all_bytes = repeat(&[0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]);
    // Byte i of each of the four weights.
    let by_digit = repeated(&[0x0C08_0400, 0x0D09_0501, 0x0E0A_0602]);
    steps.clear();
    for first in (0..outputs).step_by(group) {
        let count = group.min(outputs - first);
        let start = columns.starts[first] as usize * 3;
        let mut relative = [0; MAX_GROUP];
        for (relative, &own) in relative.iter_mut().zip(&columns.starts[first..first + count]) {
            *relative = (own as usize * 3 - start) as i32;
        }
        let relative = _mm512_castsi128_si512(load_up_to_4(&relative));
        let relative = _mm512_permutexvar_epi32(own_part, relative);
        for step in 0..steps_per_group {
            let digits = group_digits(columns, first..first + count, step * 4);
            let wanted = start + step * 12;
            // The last groups of a row start earlier, so they don't read past its end. Taps behind it have no weight, so any
            // bytes will do for them.
            let offset = wanted.min(row_bytes - 64);
            let shift = _mm512_set1_epi32((wanted - offset) as i32);
            let bytes = _mm512_add_epi32(relative, shift);
            let within = _mm512_and_si512(bytes, _mm512_set1_epi32(3));
            steps.push(Step {
                offset,
                integers: _mm512_add_epi32(_mm512_srli_epi32::<2>(bytes), neighbours),
                places: _mm512_add_epi8(_mm512_shuffle_epi8(within, to_all_bytes), taps),
                digits: [
                    _mm512_shuffle_epi8(digits, by_digit[0]),
                    _mm512_shuffle_epi8(digits, by_digit[1]),
                    _mm512_shuffle_epi8(digits, by_digit[2]),
                ],
            });
        }
    }
    Plan { steps, steps_per_group, group, outputs }
}

/// Sums for each signed digit of a weight, lowest first. They start at half, for rounding.
#[inline]
#[target_feature(enable = "avx512f")]
fn start_sums() -> [__m512i; DIGITS] {
    let mut sums = [_mm512_setzero_si512(); DIGITS];
    sums[0] = _mm512_set1_epi32(ROUNDING);
    sums
}

/// Combines the sums of all digits and takes the integer part.
#[inline]
#[target_feature(enable = "avx512f")]
fn join(sums: [__m512i; DIGITS]) -> __m512i {
    // No closures here and in the next function: whether one is inlined depends on the rest of the crate, and a call per vector makes
    // the resize half as fast.
    let [lowest, middle, highest] = sums;
    let upper = _mm512_add_epi32(_mm512_slli_epi32::<8>(highest), middle);
    let sum = _mm512_add_epi32(_mm512_slli_epi32::<8>(upper), lowest);
    _mm512_srai_epi32::<PRECISION_BITS>(sum)
}

/// Packs four vectors of sums to bytes, clamped to 0..=255. Each 128-bit part of the result has four bytes of each vector, in
/// order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pack(sums: [[__m512i; DIGITS]; QUAD]) -> __m512i {
    let [a, b, c, d] = sums;
    _mm512_packus_epi16(_mm512_packs_epi32(join(a), join(b)), _mm512_packs_epi32(join(c), join(d)))
}

/// The order of 32-bit integers that gathers the four parts of each vector after `pack`.
#[inline]
#[target_feature(enable = "avx512f")]
fn gather_order() -> __m512i {
    _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
}

/// Each digit in all integers of a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn repeated(digits: &[i32; DIGITS]) -> [__m512i; DIGITS] {
    [_mm512_set1_epi32(digits[0]), _mm512_set1_epi32(digits[1]), _mm512_set1_epi32(digits[2])]
}

/// Computes one group of outputs of four rows, packed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn along_rows(rows: [&[u8]; QUAD], steps: &[Step]) -> __m512i {
    let mut sums = [start_sums(); QUAD];
    for step in steps {
        for (sums, row) in sums.iter_mut().zip(rows) {
            let near = _mm512_permutexvar_epi32(step.integers, load(row, step.offset));
            let samples = _mm512_shuffle_epi8(near, step.places);
            for (sum, digit) in sums.iter_mut().zip(step.digits) {
                *sum = _mm512_dpbusd_epi32(*sum, samples, digit);
            }
        }
    }
    pack(sums)
}

/// Resizes a crop.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(in crate::image::augment) fn resize(passes: Passes<'_>, buffers: &mut Buffers, out: &mut [u8]) {
    let Passes { source, columns, rows, columns_first } = passes;
    if columns_first {
        columns_then_rows(source, columns, rows, buffers, out);
    } else {
        rows_then_columns(source, columns, rows, buffers, out);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn rows_then_columns(
    source: CropRows<'_>,
    columns: &Coefficients,
    rows: &Coefficients,
    buffers: &mut Buffers,
    out: &mut [u8],
) {
    let Buffers { steps, row_digits, between } = buffers;
    let plan = plan(columns, source.row_bytes, steps);
    let (first, end) = rows.input_range();
    let quads = (end - first).div_ceil(QUAD);
    let lanes = plan.outputs * 3;
    // Rounded up, so that whole vectors can be read and written after the last lane.
    let quad_bytes = (lanes * 4).next_multiple_of(256) + 64;
    between.resize(quads * quad_bytes, 0);
    let transpose = repeat(&[0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]);
    // The first three integers of each part.
    let channels = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
    for (quad, between) in between.chunks_exact_mut(quad_bytes).enumerate() {
        // Rows after the last have no weight, so any row will do.
        let quad_rows =
            [0, 1, 2, 3].map(|row| source.row((first + quad * QUAD + row).min(end - 1)));
        for (group, steps) in plan.steps.chunks_exact(plan.steps_per_group).enumerate() {
            let by_sample = _mm512_shuffle_epi8(along_rows(quad_rows, steps), transpose);
            let packed = _mm512_permutexvar_epi32(channels, by_sample);
            store(between, group * plan.group * 12, packed);
        }
    }
    for (index, out) in out.chunks_exact_mut(lanes).enumerate() {
        let (start, weights) = rows.taps(index);
        let (quad, skipped) = ((start - first) / QUAD, (start - first) % QUAD);
        quad_digits(weights, skipped, row_digits);
        along_quads(&between[quad * quad_bytes..], quad_bytes, row_digits, out);
    }
}

/// The digits of weights in groups of four, after `skipped` zeros: for each digit, four bytes in one integer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn quad_digits(weights: &[i32], skipped: usize, out: &mut Vec<[i32; DIGITS]>) {
    out.clear();
    let by_digit = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let mut push = |four: __m128i| {
        let four = _mm_shuffle_epi8(digits(four), by_digit);
        out.push([
            _mm_extract_epi32::<0>(four),
            _mm_extract_epi32::<1>(four),
            _mm_extract_epi32::<2>(four),
        ]);
    };
    let head = (QUAD - skipped).min(weights.len());
    let mut first = [0; QUAD];
    first[skipped..skipped + head].copy_from_slice(&weights[..head]);
    push(load_up_to_4(&first));
    for four in weights[head..].chunks(QUAD) {
        push(load_up_to_4(four));
    }
}

/// The pass along the columns, over groups of four rows, `stride` bytes apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn along_quads(quads: &[u8], stride: usize, digits: &[[i32; DIGITS]], out: &mut [u8]) {
    for (block, out) in out.chunks_mut(64).enumerate() {
        let mut sums = [start_sums(); 4];
        for (quad, digits) in digits.iter().enumerate() {
            let digits = repeated(digits);
            let at = quad * stride + block * 256;
            for (part, sums) in sums.iter_mut().enumerate() {
                let samples = load(quads, at + part * 64);
                for (sum, digit) in sums.iter_mut().zip(digits) {
                    *sum = _mm512_dpbusd_epi32(*sum, samples, digit);
                }
            }
        }
        let packed = pack(sums);
        store_first(out, _mm512_permutexvar_epi32(gather_order(), packed));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn columns_then_rows(
    source: CropRows<'_>,
    columns: &Coefficients,
    rows: &Coefficients,
    buffers: &mut Buffers,
    out: &mut [u8],
) {
    let Buffers { steps, row_digits, between } = buffers;
    let plan = plan(columns, source.row_bytes, steps);
    let lanes = plan.outputs * 3;
    let row_bytes = source.row_bytes;
    between.resize(row_bytes * QUAD, 0);
    // The first three bytes of each integer.
    let channels = repeat(&[0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15]);
    for (quad, out) in out.chunks_mut(lanes * QUAD).enumerate() {
        let count = out.len() / lanes;
        for (row, between) in between.chunks_exact_mut(row_bytes).take(count).enumerate() {
            let (start, weights) = rows.taps(quad * QUAD + row);
            quad_digits(weights, 0, row_digits);
            along_columns(source, start, weights.len(), row_digits, between);
        }
        // The last outputs may have fewer than four rows. The others are not written.
        let quad_rows = [0, 1, 2, 3].map(|row| &between[row * row_bytes..][..row_bytes]);
        for (group, steps) in plan.steps.chunks_exact(plan.steps_per_group).enumerate() {
            let by_row = _mm512_permutexvar_epi32(gather_order(), along_rows(quad_rows, steps));
            let by_row = _mm512_shuffle_epi8(by_row, channels);
            let parts = [
                _mm512_extracti32x4_epi32::<0>(by_row),
                _mm512_extracti32x4_epi32::<1>(by_row),
                _mm512_extracti32x4_epi32::<2>(by_row),
                _mm512_extracti32x4_epi32::<3>(by_row),
            ];
            let at = group * plan.group * 3;
            let end = (at + plan.group * 3).min(lanes);
            for (row, part) in out.chunks_exact_mut(lanes).zip(parts) {
                store_first_16(&mut row[at..end], part);
            }
        }
    }
}

/// Computes one row of the pass along the columns, directly from the source.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn along_columns(
    source: CropRows<'_>,
    start: usize,
    count: usize,
    digits: &[[i32; DIGITS]],
    out: &mut [u8],
) {
    let mut at = 0;
    while at < out.len() {
        // The last block overlaps the previous one, so it does not read past the end of the rows.
        at = at.min(out.len() - 64);
        let mut sums = [start_sums(); 4];
        for (quad, digits) in digits.iter().enumerate() {
            let row = |tap: usize| load(source.row(start + (quad * QUAD + tap).min(count - 1)), at);
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab_low, ab_high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
            let samples = [
                _mm512_unpacklo_epi16(ab_low, cd_low),
                _mm512_unpackhi_epi16(ab_low, cd_low),
                _mm512_unpacklo_epi16(ab_high, cd_high),
                _mm512_unpackhi_epi16(ab_high, cd_high),
            ];
            let digits = repeated(digits);
            for (sums, samples) in sums.iter_mut().zip(samples) {
                for (sum, digit) in sums.iter_mut().zip(digits) {
                    *sum = _mm512_dpbusd_epi32(*sum, samples, digit);
                }
            }
        }
        store(out, at, pack(sums));
        at += 64;
    }
}
