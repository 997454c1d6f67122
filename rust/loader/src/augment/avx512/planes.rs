//! Resampling of one plane with weights of 14 fractional bits.
//!
//! As the exact kernels do it (`resize.rs`), but a lane is an output, and two signed digits in base 256 make a weight.

use std::arch::x86_64::*;

use super::super::coefficients::Coefficients;
use super::super::planes::{SHORT_BITS, short};
use super::resize::{QUAD, along_quads, pack, start_sums};
use super::{load, store};
use crate::decode::Plane;

/// Lanes of a vector of 32-bit sums.
const LANES: usize = 16;

/// The weights of four taps of one group of outputs.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Where in the row the 64 bytes begin that hold the samples.
    offset: usize,
    /// For each lane's four bytes, their places in the 64.
    places: [u8; 64],
    digits: [[u8; 64]; 2],
}

/// Buffers of these kernels, reused.
#[derive(Debug, Default)]
pub(in super::super) struct Buffers {
    plan: Plan,
    row_digits: Vec<[i32; 2]>,
    between: Vec<u8>,
}

/// The pass along the rows: groups of outputs, each with the same number of steps.
#[derive(Debug, Default)]
struct Plan {
    steps: Vec<Step>,
    steps_per_group: usize,
    group: usize,
}

/// The signed digits of a weight, the lower one first.
#[inline]
fn digits(weight: i32) -> [u8; 2] {
    let weight = short(weight);
    [weight as u8, ((weight + 128) >> 8) as u8]
}

impl Plan {
    /// For rows of which `row_bytes` bytes can be read.
    fn make(&mut self, columns: &Coefficients, row_bytes: usize, scale: f64) {
        let outputs = columns.starts.len();
        // The first taps of a group's outputs lie at most 60 samples apart, so that four taps of each fit 64 bytes.
        self.group = LANES.min(1 + (60.0 / scale) as usize);
        let most = columns.counts.iter().copied().max().unwrap_or(0) as usize;
        self.steps_per_group = most.div_ceil(QUAD);
        self.steps.clear();
        for first in (0..outputs).step_by(self.group) {
            let group = first..outputs.min(first + self.group);
            let start = columns.starts[first] as usize;
            for step in 0..self.steps_per_group {
                let wanted = start + step * QUAD;
                // The last groups of a row begin earlier, so as not to read past its end.
                let offset = wanted.min(row_bytes - 64);
                let (mut places, mut all) = ([0; 64], [[0; 64]; 2]);
                for (lane, output) in group.clone().enumerate() {
                    let own = columns.starts[output] as usize + step * QUAD - offset;
                    let weights = &columns.weights[output * columns.stride..][..columns.stride];
                    for tap in 0..QUAD {
                        let at = lane * QUAD + tap;
                        // What lies behind the row has no weight.
                        places[at] = (own + tap).min(63) as u8;
                        let weight = weights.get(step * QUAD + tap).copied().unwrap_or(0);
                        [all[0][at], all[1][at]] = digits(weight);
                    }
                }
                self.steps.push(Step {
                    offset,
                    places,
                    digits: all,
                });
            }
        }
    }
}

/// One group of outputs of four rows: for each output the four rows' bytes side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn along_rows(rows: [&[u8]; QUAD], steps: &[Step]) -> __m512i {
    let mut sums = [start_sums::<2, SHORT_BITS>(); QUAD];
    for step in steps {
        let places = load(&step.places, 0);
        let digits = [load(&step.digits[0], 0), load(&step.digits[1], 0)];
        for (sums, row) in sums.iter_mut().zip(rows) {
            let samples = _mm512_permutexvar_epi8(places, load(row, step.offset));
            for (sum, digit) in sums.iter_mut().zip(digits) {
                *sum = _mm512_dpbusd_epi32(*sum, samples, digit);
            }
        }
    }
    let by_output = _mm512_broadcast_i32x4(_mm_setr_epi8(
        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,
    ));
    let packed = pack::<2, SHORT_BITS>(sums);
    _mm512_shuffle_epi8(packed, by_output)
}

/// Resizes a plane, rows first. The horizontal scale is given, and whether the weights are other ones than at the last call.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
pub(in super::super) fn resize(
    plane: &Plane<'_>,
    columns: &Coefficients,
    rows: &Coefficients,
    (scale, others): (f64, bool),
    buffers: &mut Buffers,
    out: &mut [u8],
) {
    let Buffers {
        plan,
        row_digits,
        between,
    } = buffers;
    if others {
        plan.make(columns, plane.row(0).len(), scale);
    }
    let (first, end) = rows.input_range();
    let quads = (end - first).div_ceil(QUAD);
    let outputs = columns.starts.len();
    // Rounded up so that whole vectors can be read and written behind the last output.
    let quad_bytes = (outputs * QUAD).next_multiple_of(256) + 64;
    if between.len() < quads * quad_bytes {
        between.resize(quads * quad_bytes, 0);
    }
    for (quad, between) in between.chunks_exact_mut(quad_bytes).take(quads).enumerate() {
        // Rows after the last have no weight: any row will do in their place.
        let quad_rows = [0, 1, 2, 3].map(|row| plane.row((first + quad * QUAD + row).min(end - 1)));
        for (group, steps) in plan.steps.chunks_exact(plan.steps_per_group).enumerate() {
            store(
                between,
                group * plan.group * QUAD,
                along_rows(quad_rows, steps),
            );
        }
    }
    for (index, out) in out.chunks_exact_mut(outputs).enumerate() {
        let (start, weights) = rows.taps(index);
        let (quad, skipped) = ((start - first) / QUAD, (start - first) % QUAD);
        row_digits.clear();
        row_digits.resize((skipped + weights.len()).div_ceil(QUAD), [0; 2]);
        for (tap, &weight) in (skipped..).zip(weights) {
            let [low, high] = digits(weight).map(|digit| i32::from(digit) << (tap % QUAD * 8));
            row_digits[tap / QUAD][0] |= low;
            row_digits[tap / QUAD][1] |= high;
        }
        along_quads::<2, SHORT_BITS>(&between[quad * quad_bytes..], quad_bytes, row_digits, out);
    }
}
