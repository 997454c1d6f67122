//! The fixed-point weights of Pillow's filters along one axis.

use crate::Filter;

/// Fractional bits of a weight: 32 bits, minus 8 for the sample and 2 for overshoot, as in Pillow.
pub(super) const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Half a unit of the result: every sum starts with it, for rounding.
pub(super) const ROUNDING: i32 = 1 << (PRECISION_BITS - 1);

#[derive(Debug, Default)]
pub(super) struct Coefficients {
    /// First input position of each output.
    pub(super) starts: Vec<u32>,
    pub(super) counts: Vec<u32>,
    /// `stride` of them for each output, zero past its count.
    pub(super) weights: Vec<i32>,
    pub(super) stride: usize,
    raw: Vec<f64>,
}

impl Coefficients {
    /// Memory of the weights of one output position.
    pub(super) fn stride(filter: Filter, [input, output]: [u32; 2]) -> usize {
        let scale = f64::from(input) / f64::from(output);
        (filter.support() * scale.max(1.0)).ceil() as usize * 2 + 1
    }

    /// For outputs `from..from + count` when `input` positions are resized to `output`. The arithmetic has Pillow's order and
    /// precision, so the integers are equal.
    pub(super) fn compute(
        &mut self,
        filter: Filter,
        [input, output]: [u32; 2],
        [from, count]: [u32; 2],
    ) {
        let scale = f64::from(input) / f64::from(output);
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        self.stride = Self::stride(filter, [input, output]);
        self.starts.clear();
        self.counts.clear();
        self.weights.clear();
        self.weights.resize(self.stride * count as usize, 0);
        self.raw.clear();
        self.raw.resize(self.stride, 0.0);
        if filter == Filter::Nearest {
            return self.nearest(scale, from, count);
        }
        let inverse = 1.0 / filter_scale;
        for (position, weights) in
            (from..from + count).zip(self.weights.chunks_exact_mut(self.stride))
        {
            let center = (f64::from(position) + 0.5) * scale;
            // Both ends are rounded half up and clamped to the image.
            let start = (center - support + 0.5).max(0.0) as u32;
            let end = ((center + support + 0.5) as u32).min(input);
            let raw = &mut self.raw[..(end - start) as usize];
            let mut sum = 0.0;
            for (tap, value) in raw.iter_mut().enumerate() {
                *value = filter.weight((f64::from(start + tap as u32) - center + 0.5) * inverse);
                sum += *value;
            }
            for (weight, value) in weights.iter_mut().zip(raw.iter()) {
                let value = if sum == 0.0 { *value } else { *value / sum };
                let half = if value < 0.0 { -0.5 } else { 0.5 };
                *weight = (half + value * f64::from(1 << PRECISION_BITS)) as i32;
            }
            self.starts.push(start);
            self.counts.push(end - start);
        }
    }

    /// One input position each. Pillow adds the scale up, so its rounding errors add up too.
    fn nearest(&mut self, scale: f64, from: u32, count: u32) {
        let mut at = 0.5 * scale;
        for position in 0..from + count {
            if position >= from {
                self.starts.push(at as u32);
            }
            at += scale;
        }
        self.counts.resize(count as usize, 1);
        for weights in self.weights.chunks_exact_mut(self.stride) {
            weights[0] = 1 << PRECISION_BITS;
        }
    }

    /// The first input position, and one after the last.
    pub(super) fn input_range(&self) -> (usize, usize) {
        let first = self.starts.first().copied().unwrap_or(0);
        let end = self
            .starts
            .iter()
            .zip(&self.counts)
            .next_back()
            .map_or(first, |(start, count)| start + count);
        (first as usize, end as usize)
    }

    /// Most input positions of an output.
    pub(super) fn max_taps(&self) -> usize {
        self.counts.iter().copied().max().unwrap_or(0) as usize
    }

    /// First input position and weights of an output, counted from the first one computed.
    pub(super) fn taps(&self, index: usize) -> (usize, &[i32]) {
        let weights = &self.weights[index * self.stride..];
        (self.starts[index] as usize, &weights[..self.counts[index] as usize])
    }
}
