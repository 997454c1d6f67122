//! The weights of the resize, in the order in which the vector kernels read them.
//!
//! A weight has 22 fractional bits. In w = low + 65536 high, the lower part fits in 16 signed bits and the upper part in 8. So
//! the sum over taps of sample * w is two sums of products: of 32 bits, and for the upper parts of 16 bits for up to [`CHUNK`]
//! taps, because the weights of an output sum to 1 and few are negative. All is exact modulo 2^32, and the whole sum fits in 32
//! bits.

use super::super::coefficients::Coefficients;

/// Samples of one row that a part of a vector has.
pub(super) const SAMPLES: usize = 4;
/// Groups of samples that are stored together.
pub(super) const GROUPS: usize = 4;
/// Taps of a whole step of the pass along the rows. Half a step has two.
const TAPS: usize = 4;
/// Taps whose upper sums fit in 16 bits.
const CHUNK: usize = 64;
/// Steps of the pass along the rows, and pairs of rows, with that many taps.
pub(super) const STEPS_IN_CHUNK: usize = CHUNK / TAPS;
pub(super) const PAIRS_IN_CHUNK: usize = CHUNK / 2;
/// Numbers for the four samples of a part.
pub(super) type Part = [u8; 16];

/// The weights of four taps of one group of samples; in half a step of two taps, which take the even places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Offset in the row of the 16 bytes with all taps.
    pub(super) offset: usize,
    /// Where each sample's four taps are in them. In half a step the odd ones are absent.
    pub(super) places: Part,
    /// Lower parts of the first and third weight of each sample.
    pub(super) even: Part,
    /// Of the second and fourth.
    pub(super) odd: Part,
    pub(super) upper: Part,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) steps_per_group: usize,
    pub(super) whole_steps: usize,
}

#[derive(Debug, Default)]
pub(in super::super) struct Buffers {
    pub(super) plan: Plan,
    pub(super) taps: Vec<RowPair>,
    /// The rows of a strip between the passes.
    pub(super) strip: Vec<u8>,
    /// The newest pairs of rows, in turns.
    pub(super) pairs: Vec<u8>,
}

/// Its taps are being put into steps.
#[derive(Clone, Copy, Default)]
struct Lane<'a> {
    /// The place in the row of the next tap.
    next: usize,
    /// Of the taps from there on.
    weights: &'a [i32],
}

impl Plan {
    /// Prepares rows of `row_bytes` bytes, at least 16.
    pub(super) fn fill(&mut self, columns: &Coefficients, row_bytes: usize) {
        let mut half_steps = columns.max_taps().div_ceil(TAPS / 2).max(1);
        while !self.fits(columns, row_bytes, half_steps) {
            half_steps += (half_steps / 16).max(1); // by one, far apart outputs of many taps would take their square
        }
    }

    /// Tries to fit all taps into this many half steps. If neighbouring outputs are far apart, the 16 bytes of a step may not have
    /// four taps of each sample.
    fn fits(&mut self, columns: &Coefficients, row_bytes: usize, half_steps: usize) -> bool {
        self.whole_steps = half_steps / 2;
        self.steps_per_group = half_steps.div_ceil(2);
        self.steps.clear();
        let samples = columns.starts.len() * 3;
        let groups = samples.div_ceil(SAMPLES).next_multiple_of(GROUPS);
        (0..groups).all(|group| {
            let mut lanes = [Lane::default(); SAMPLES];
            for (lane, sample) in lanes.iter_mut().zip(group * SAMPLES..samples) {
                let (start, weights) = columns.taps(sample / 3);
                *lane = Lane { next: start * 3 + sample % 3, weights };
            }
            self.push_group(&mut lanes, row_bytes);
            lanes.iter().all(|lane| lane.weights.is_empty())
        })
    }

    /// In each step, a sample takes the next taps that are in its 16 bytes.
    fn push_group(&mut self, lanes: &mut [Lane<'_>; SAMPLES], row_bytes: usize) {
        for step in 0..self.steps_per_group {
            let is_whole = step < self.whole_steps;
            let unfinished = lanes.iter().filter(|lane| !lane.weights.is_empty());
            let first = unfinished.map(|lane| lane.next).min().unwrap_or(0);
            // The last steps of a row start earlier, so they don't read past its end.
            let offset = first.min(row_bytes - 16);
            let mut values = [[0; SAMPLES]; 4];
            for (index, lane) in lanes.iter_mut().enumerate() {
                let place = lane.next.saturating_sub(offset);
                let in_reach = if place < 16 { (15 - place) / 3 + 1 } else { 0 };
                let most = if is_whole { TAPS } else { TAPS / 2 };
                let taken = most.min(in_reach).min(lane.weights.len());
                let (now, later) = lane.weights.split_at(taken);
                let step = if is_whole { four(now, place) } else { two(now, place) };
                for (values, value) in values.iter_mut().zip(step) {
                    values[index] = value;
                }
                lane.next += taken * 3;
                lane.weights = later;
            }
            let [places, even, odd, upper] = values.map(bytes);
            self.steps.push(Step { offset, places, even, odd, upper });
        }
    }
}

/// The numbers of a whole step for one sample, in the order of [`Step`]: up to four weights, and where the first tap is.
fn four(weights: &[i32], place: usize) -> [u32; 4] {
    let mut all = [0; TAPS];
    for (all, &weight) in all.iter_mut().zip(weights) {
        *all = weight;
    }
    // The places after the last weight are not used.
    let places = [0, 3, 6, 9].map(|after| (place + after).min(15) as u8);
    [
        u32::from_le_bytes(places),
        two_lower(all[0], all[2]),
        two_lower(all[1], all[3]),
        u32::from_le_bytes(all.map(|weight| upper(weight) as u8)),
    ]
}

/// The same for half a step: up to two weights.
fn two(weights: &[i32], place: usize) -> [u32; 4] {
    const NONE: u8 = 128;
    let weight = |tap| weights.get(tap).copied().unwrap_or(0);
    let (one, other) = (weight(0), weight(1));
    let places = [place.min(15) as u8, NONE, (place + 3).min(15) as u8, NONE];
    [
        u32::from_le_bytes(places),
        two_lower(one, other),
        0,
        u32::from_le_bytes([upper(one) as u8, 0, upper(other) as u8, 0]),
    ]
}

fn bytes(values: [u32; SAMPLES]) -> Part {
    let mut part = Part::default();
    for (bytes, value) in part.chunks_exact_mut(4).zip(values) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    part
}

/// The lower part is signed.
fn upper(weight: i32) -> i32 {
    (weight + 0x8000) >> 16
}

fn two_lower(one: i32, other: i32) -> u32 {
    one as u32 & 0xFFFF | (other as u32) << 16
}

/// Where the newest pairs of rows are: a ring buffer.
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

    fn offset(self, pair: usize) -> usize {
        pair % self.count * self.stride
    }

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
#[path = "plan_tests.rs"]
mod tests;
