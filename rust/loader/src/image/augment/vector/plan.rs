//! The weights of the resize as the vector kernels read them.
//!
//! A weight has 22 fractional bits. In w = low + 65536 high, the lower part fits in 16 signed bits and the upper part in 8. So
//! the sum over taps of sample * w is two sums of products. The sums of the lower parts have 32 bits. Those of the upper parts
//! fit in 16 bits for up to [`CHUNK`] taps, because the weights of an output sum to 1 and few are negative. Everything is
//! exact modulo 2^32, and the whole sum fits in 32 bits.

use std::ops::Range;

use super::super::coefficients::Coefficients;

/// Samples of one row that a part of a vector has.
pub(super) const SAMPLES: usize = 4;
/// Groups of samples that are stored together.
pub(super) const GROUPS: usize = 4;
/// Taps of a whole step of the pass along the rows. Half a step has two.
const TAPS: usize = 4;
/// Most taps whose upper sums fit in 16 bits.
const CHUNK: usize = 64;
/// Steps of the pass along the rows, and pairs of rows, with that many taps.
pub(super) const STEPS_IN_CHUNK: usize = CHUNK / TAPS;
pub(super) const PAIRS_IN_CHUNK: usize = CHUNK / 2;
/// The largest distances in pixels of neighbouring outputs of which four taps, or two, fit in 16 bytes.
const APART_FOR_FOUR: u32 = 2;
const APART_FOR_TWO: u32 = 4;

/// Numbers for the four samples of a part.
pub(super) type Part = [u8; 16];

/// The weights of four taps of one group of samples; or of two taps, which are the even ones then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Offset in the row of the 16 bytes with the taps of all samples.
    pub(super) offset: usize,
    /// Where the four taps of each sample are in the 16 bytes. The odd ones of half a step are nowhere.
    pub(super) places: Part,
    /// The lower parts of the first and third weight of each sample.
    pub(super) even: Part,
    /// The lower parts of the second and fourth weight.
    pub(super) odd: Part,
    /// The upper parts of the four weights.
    pub(super) upper: Part,
}

/// The lower and upper parts of the weights of four taps of one output, as in [`Step`].
#[derive(Debug, Clone, Copy, Default)]
struct Parts {
    even: u32,
    odd: u32,
    upper: u32,
}

/// The weights of the pass along the rows: for each group of samples the same number of steps.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) steps_per_group: usize,
    /// How many of the steps are whole. Half steps follow them.
    pub(super) whole_steps: usize,
    /// Whether a group is one pixel. Else a group is any four samples.
    pub(super) one_pixel: bool,
    parts: Vec<Parts>,
}

impl Plan {
    /// Prepares rows of `row_bytes` bytes, at least 16.
    pub(super) fn fill(&mut self, columns: &Coefficients, row_bytes: usize) {
        let starts = &columns.starts;
        let apart = starts.windows(2).map(|two| two[1] - two[0]).max();
        let apart = apart.unwrap_or(0);
        self.one_pixel = apart > APART_FOR_TWO;
        let only_twos = !self.one_pixel && apart > APART_FOR_FOUR;
        let twos = columns.most().div_ceil(2).max(1);
        self.whole_steps = if only_twos { 0 } else { twos / 2 };
        self.steps_per_group = twos - self.whole_steps;
        self.parts.clear();
        for output in 0..starts.len() {
            let (_, weights) = columns.taps(output);
            for step in 0..self.steps_per_group {
                let weights = weights.get(self.taps_before(step)..).unwrap_or(&[]);
                let parts = if step < self.whole_steps {
                    Parts::of_four(weights)
                } else {
                    Parts::of_two(weights)
                };
                self.parts.push(parts);
            }
        }
        let lanes_per_group = if self.one_pixel { 3 } else { SAMPLES };
        let groups = (starts.len() * 3)
            .div_ceil(lanes_per_group)
            .next_multiple_of(GROUPS);
        self.steps.clear();
        for group in 0..groups {
            let samples = group * lanes_per_group..(group + 1) * lanes_per_group;
            self.push_group(starts, row_bytes, samples);
        }
    }

    fn taps_before(&self, step: usize) -> usize {
        step.min(self.whole_steps) * TAPS + step.saturating_sub(self.whole_steps) * TAPS / 2
    }

    /// Adds the steps of a group of samples, some of which may be after the last one.
    fn push_group(&mut self, starts: &[u32], row_bytes: usize, samples: Range<usize>) {
        // For each lane: the first byte of the first tap, and the parts of the first weights.
        let mut lanes = [(usize::MAX, 0); SAMPLES];
        let existing = samples.start..samples.end.min(starts.len() * 3);
        let count = existing.len();
        for (lane, sample) in lanes.iter_mut().zip(existing) {
            let (output, channel) = (sample / 3, sample % 3);
            *lane = (
                starts[output] as usize * 3 + channel,
                output * self.steps_per_group,
            );
        }
        let begin = lanes[0].0.min(lanes[1].0).min(lanes[2].0).min(lanes[3].0);
        let begin = if count == 0 { 0 } else { begin };
        for step in 0..self.steps_per_group {
            let bytes_before = self.taps_before(step) * 3;
            let places = if step < self.whole_steps {
                four_places
            } else {
                two_places
            };
            // The last steps of a row start earlier, so they don't read past its end.
            let offset = (begin + bytes_before).min(row_bytes - 16);
            let mut values = [[0; SAMPLES]; 4];
            for (lane, &(first, weights)) in lanes[..count].iter().enumerate() {
                let parts = self.parts[weights + step];
                values[0][lane] = places(first + bytes_before - offset);
                values[1][lane] = parts.even;
                values[2][lane] = parts.odd;
                values[3][lane] = parts.upper;
            }
            let [places, even, odd, upper] = values.map(bytes);
            self.steps.push(Step {
                offset,
                places,
                even,
                odd,
                upper,
            });
        }
    }
}

fn bytes(values: [u32; SAMPLES]) -> Part {
    let mut part = Part::default();
    for (bytes, value) in part.chunks_exact_mut(4).zip(values) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    part
}

/// The indices of four bytes with two between each. Taps beyond the 16 bytes have no weight, so any byte will do for them.
fn four_places(first: usize) -> u32 {
    const APART: u32 = 0x0906_0300;
    if first <= 6 {
        return first as u32 * 0x0101_0101 + APART;
    }
    u32::from_le_bytes([0, 3, 6, 9].map(|after| (first + after).min(15) as u8))
}

/// The indices of two bytes with two between, each followed by the index of no byte.
fn two_places(first: usize) -> u32 {
    const NONE: u8 = 128;
    u32::from_le_bytes([first.min(15) as u8, NONE, (first + 3).min(15) as u8, NONE])
}

impl Parts {
    /// The parts of the first two weights. Missing ones are 0.
    fn of_two(weights: &[i32]) -> Self {
        let weight = |tap| weights.get(tap).copied().unwrap_or(0);
        let (one, other) = (weight(0), weight(1));
        Self {
            even: two_lower(one, other),
            odd: 0,
            upper: u32::from_le_bytes([upper(one) as u8, 0, upper(other) as u8, 0]),
        }
    }

    /// The parts of the first four weights. Missing ones are 0.
    fn of_four(weights: &[i32]) -> Self {
        let mut four = [0; TAPS];
        let count = weights.len().min(TAPS);
        four[..count].copy_from_slice(&weights[..count]);
        let upper = four.map(|weight| upper(weight) as u8);
        Self {
            even: two_lower(four[0], four[2]),
            odd: two_lower(four[1], four[3]),
            upper: u32::from_le_bytes(upper),
        }
    }
}

/// The upper part of a weight. The lower part is signed.
fn upper(weight: i32) -> i32 {
    (weight + 0x8000) >> 16
}

fn two_lower(one: i32, other: i32) -> u32 {
    one as u32 & 0xFFFF | (other as u32) << 16
}

/// Where the newest pairs of rows are: a buffer that is used in a circle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    stride: usize,
    count: usize,
}

impl Ring {
    /// A place for as many pairs as contain `rows` rows, of `stride` bytes each.
    pub(super) fn new(rows: usize, stride: usize, pairs: &mut Vec<u8>) -> Self {
        let count = rows / 2 + 1;
        pairs.resize(count * stride, 0);
        Self { stride, count }
    }

    /// Where a pair starts.
    fn offset(self, pair: usize) -> usize {
        pair % self.count * self.stride
    }

    /// The place of a pair.
    pub(super) fn place(self, pairs: &mut [u8], pair: usize) -> &mut [u8] {
        &mut pairs[self.offset(pair)..][..self.stride]
    }
}

/// The weights of a pair of input rows in one output row.
#[derive(Debug)]
pub(super) struct RowPair {
    /// Where the pair is in the ring.
    pub(super) offset: usize,
    /// The lower parts of both weights, for each of four samples.
    pub(super) lower: Part,
    /// The upper parts of both weights, for each of eight samples.
    pub(super) upper: Part,
}

/// Sets the pairs of the input rows from `first` on, counted from the first row of the first pair.
pub(super) fn row_pairs(weights: &[i32], first: usize, ring: Ring, pairs: &mut Vec<RowPair>) {
    pairs.clear();
    let mut push = |one: i32, other: i32| {
        let both = u16::from_le_bytes([upper(one) as u8, upper(other) as u8]);
        pairs.push(RowPair {
            offset: ring.offset(first / 2 + pairs.len()),
            lower: bytes([two_lower(one, other); SAMPLES]),
            upper: bytes([u32::from(both) * 0x1_0001; SAMPLES]),
        });
    };
    let mut rest = weights;
    if first % 2 == 1 {
        // The first row is the second one of a pair. The other has no weight.
        push(0, weights[0]);
        rest = &weights[1..];
    }
    for two in rest.chunks(2) {
        push(two[0], two.get(1).copied().unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_upper_parts_fit_in_16_bits() {
        let sizes = [
            1, 2, 3, 5, 17, 100, 223, 224, 225, 300, 448, 999, 4000, 20_000,
        ];
        let mut columns = Coefficients::default();
        for input in sizes {
            for output in [1, 2, 7, 33, 224, 336] {
                columns.compute(input, output, 0, output);
                for index in 0..output as usize {
                    let (_, weights) = columns.taps(index);
                    for chunk in weights.chunks(CHUNK) {
                        let sum: i32 = chunk.iter().map(|&weight| upper(weight).abs()).sum();
                        assert!(
                            sum * 255 <= i32::from(i16::MAX),
                            "{input} to {output}: {sum}"
                        );
                        assert!(chunk.iter().all(|&weight| upper(weight).abs() < 128));
                    }
                }
            }
        }
    }
}
