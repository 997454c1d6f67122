//! Pillow's fixed-point resampling, exactly, with byte products.
//!
//! A weight has 22 fractional bits. With signed digits in base 256, w = d0 + 256 d1 + 65536 d2, the sum over taps of sample * w
//! is three sums of byte products, which `vpdpbusd` computes for four taps and sixteen lanes at a time. All is exact modulo 2^32,
//! and the sum fits in 32 bits.
//!
//! The pass along the rows stores the bytes of four rows side by side, as the pass along the columns needs them.

use std::arch::x86_64::*;

use super::{load, load_16, load_up_to_4, repeat, store, store_first, store_first_16};
use crate::coefficients::{Coefficients, PRECISION_BITS, ROUNDING};
use crate::crop_rows::CropRows;
use crate::passes::Passes;

const LANES: usize = 16;
/// Numbers of samples, largest first. All but the first are whole pixels.
const GROUPS: [usize; 5] = [LANES, 12, 9, 6, 3];
const QUAD: usize = 4;
/// Signed base-256 digits of a weight.
const DIGITS: usize = 3;

/// The weights of four taps of one group of samples.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Offset in the row of the 64 bytes with the taps.
    offset: usize,
    /// Where in them the four taps of each sample are.
    places: __m512i,
    digits: [__m512i; DIGITS],
}

#[derive(Debug, Default)]
pub(crate) struct Buffers {
    steps: Vec<Step>,
    digits: Vec<[i32; DIGITS]>,
    between: Vec<u8>,
}

/// Weights for the pass along the rows: groups of samples, each with the same number of steps.
struct Plan<'a> {
    steps: &'a [Step],
    steps_per_group: usize,
    lanes: usize,
    samples: usize,
}

pub(crate) fn fits(width: u32) -> bool {
    width as usize * 3 >= 64
}

/// For rows of `row_bytes` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn plan<'a>(
    columns: &Coefficients,
    row_bytes: usize,
    steps: &'a mut Vec<Step>,
    digits: &mut Vec<[i32; DIGITS]>,
) -> Plan<'a> {
    let samples = columns.starts.len() * 3;
    let start = |sample: usize| columns.starts[sample / 3] as usize * 3;
    // Whether the 64 bytes of a step have four taps of each sample.
    let fit = |lanes: usize| {
        let mut groups =
            (0..samples).step_by(lanes).map(|first| (first, (first + lanes).min(samples) - 1));
        groups.all(|(first, last)| start(last) + 12 <= start(first) + 64)
    };
    let lanes = GROUPS.into_iter().find(|&lanes| fit(lanes)).unwrap_or(3);
    let steps_per_group = columns.max_taps().div_ceil(4);
    digits.clear();
    for weights in columns.weights.chunks_exact(columns.stride) {
        digits_of_quads(&weights[..(steps_per_group * 4).min(columns.stride)], 0, digits);
    }
    steps.clear();
    for first in (0..samples).step_by(lanes) {
        let count = lanes.min(samples - first);
        for step in 0..steps_per_group {
            let wanted = start(first) + step * 12;
            // The last groups of a row start earlier, so they don't read past its end. Taps behind it have no weight, so any
            // bytes will do.
            let offset = wanted.min(row_bytes - 64);
            let mut places = [0; LANES];
            let mut values = [[0; LANES]; DIGITS];
            for lane in 0..count {
                let sample = first + lane;
                // The taps of a channel are three bytes apart.
                let place = start(sample) + sample % 3 + step * 12 - offset;
                places[lane] = (place as i32).wrapping_mul(0x0101_0101).wrapping_add(0x0906_0300);
                for (values, digit) in
                    values.iter_mut().zip(digits[sample / 3 * steps_per_group + step])
                {
                    values[lane] = digit;
                }
            }
            let [a, b, c] = values;
            steps.push(Step {
                offset,
                places: load_16(&places),
                digits: [load_16(&a), load_16(&b), load_16(&c)],
            });
        }
    }
    Plan { steps, steps_per_group, lanes, samples }
}

/// The signed digits of four weights. Byte i of each 32-bit integer is its digit i.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn digits(weights: __m128i) -> __m128i {
    // Adding 128 to a byte carries if the digit would exceed 127. Flipping its high bit subtracts the 128 again.
    let half = _mm_set1_epi32(0x0080_8080);
    _mm_xor_si128(_mm_add_epi32(weights, half), half)
}

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
    // No closures here and in the next function: the rest of the crate decides whether one is inlined, and a call per vector
    // makes the resize half as fast.
    let [lowest, middle, highest] = sums;
    let upper = _mm512_add_epi32(_mm512_slli_epi32::<8>(highest), middle);
    let sum = _mm512_add_epi32(_mm512_slli_epi32::<8>(upper), lowest);
    _mm512_srai_epi32::<PRECISION_BITS>(sum)
}

/// Four vectors of sums as bytes, clamped to 0..=255. Each 128-bit part of the result has four bytes of each vector, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pack(sums: [[__m512i; DIGITS]; QUAD]) -> __m512i {
    let [a, b, c, d] = sums;
    _mm512_packus_epi16(_mm512_packs_epi32(join(a), join(b)), _mm512_packs_epi32(join(c), join(d)))
}

/// Gathers the four parts of each vector after `pack`.
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

/// Computes one group of samples of four rows, packed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vbmi")]
fn along_rows(rows: [&[u8]; QUAD], steps: &[Step]) -> __m512i {
    let mut sums = [start_sums(); QUAD];
    for step in steps {
        for (sums, row) in sums.iter_mut().zip(rows) {
            let samples = _mm512_permutexvar_epi8(step.places, load(row, step.offset));
            for (sum, digit) in sums.iter_mut().zip(step.digits) {
                *sum = _mm512_dpbusd_epi32(*sum, samples, digit);
            }
        }
    }
    pack(sums)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")]
pub(crate) fn resize(passes: Passes<'_>, buffers: &mut Buffers, out: &mut [u8]) {
    let Passes { source, columns, rows, columns_first } = passes;
    if columns_first {
        columns_then_rows(source, columns, rows, buffers, out);
    } else {
        rows_then_columns(source, columns, rows, buffers, out);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")]
fn rows_then_columns(
    source: CropRows<'_>,
    columns: &Coefficients,
    rows: &Coefficients,
    buffers: &mut Buffers,
    out: &mut [u8],
) {
    let Buffers { steps, digits, between } = buffers;
    let plan = plan(columns, source.row_bytes, steps, digits);
    let (first, end) = rows.input_range();
    let quads = (end - first).div_ceil(QUAD);
    // Rounded up, so that whole vectors can be read and written after the last sample.
    let quad_bytes = (plan.samples * 4).next_multiple_of(256) + 64;
    between.resize(quads * quad_bytes, 0);
    let transpose = repeat(&[0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]);
    for (quad, between) in between.chunks_exact_mut(quad_bytes).enumerate() {
        let quad_rows =
            [0, 1, 2, 3].map(|row| source.row((first + quad * QUAD + row).min(end - 1)));
        for (group, steps) in plan.steps.chunks_exact(plan.steps_per_group).enumerate() {
            let by_sample = _mm512_shuffle_epi8(along_rows(quad_rows, steps), transpose);
            store(between, group * plan.lanes * 4, by_sample);
        }
    }
    for (index, out) in out.chunks_exact_mut(plan.samples).enumerate() {
        let (start, weights) = rows.taps(index);
        let (quad, skipped) = ((start - first) / QUAD, (start - first) % QUAD);
        digits.clear();
        digits_of_quads(weights, skipped, digits);
        along_quads(&between[quad * quad_bytes..], quad_bytes, digits, out);
    }
}

/// Adds the digits of weights in groups of four, after `skipped` zeros: for each digit, four bytes in one integer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn digits_of_quads(weights: &[i32], skipped: usize, out: &mut Vec<[i32; DIGITS]>) {
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")]
fn columns_then_rows(
    source: CropRows<'_>,
    columns: &Coefficients,
    rows: &Coefficients,
    buffers: &mut Buffers,
    out: &mut [u8],
) {
    let Buffers { steps, digits, between } = buffers;
    let plan = plan(columns, source.row_bytes, steps, digits);
    let row_bytes = source.row_bytes;
    between.resize(row_bytes * QUAD, 0);
    for (quad, out) in out.chunks_mut(plan.samples * QUAD).enumerate() {
        let count = out.len() / plan.samples;
        for (row, between) in between.chunks_exact_mut(row_bytes).take(count).enumerate() {
            let (start, weights) = rows.taps(quad * QUAD + row);
            digits.clear();
            digits_of_quads(weights, 0, digits);
            along_columns(source, start, weights.len(), digits, between);
        }
        let quad_rows = [0, 1, 2, 3].map(|row| &between[row * row_bytes..][..row_bytes]);
        for (group, steps) in plan.steps.chunks_exact(plan.steps_per_group).enumerate() {
            let by_row = _mm512_permutexvar_epi32(gather_order(), along_rows(quad_rows, steps));
            let parts = [
                _mm512_extracti32x4_epi32::<0>(by_row),
                _mm512_extracti32x4_epi32::<1>(by_row),
                _mm512_extracti32x4_epi32::<2>(by_row),
                _mm512_extracti32x4_epi32::<3>(by_row),
            ];
            let at = group * plan.lanes;
            let end = (at + plan.lanes).min(plan.samples);
            for (row, part) in out.chunks_exact_mut(plan.samples).zip(parts) {
                store_first_16(&mut row[at..end], part);
            }
        }
    }
}

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
