//! Pillow's fixed-point resampling, exactly, with products of 8-bit and 16-bit numbers.
//!
//! The pass along the rows computes four neighbouring samples of a few rows at a time. The pass along the columns reads pairs of
//! rows whose samples are stored in turns. An output row is computed as soon as its rows exist, so few pairs exist at a time, in
//! the fastest cache.

/// Defines `resize` for the operations in scope.
macro_rules! resize {
    ($features:literal) => {
        use super::super::coefficients::{Coefficients, PRECISION_BITS, ROUNDING};
        use super::super::crop_rows::CropRows;
        use super::super::passes::Passes;
        use super::plan::{
            Buffers, GROUPS, PAIRS_IN_CHUNK, Plan, Ring, RowPair, SAMPLES, STEPS_IN_CHUNK, Step,
            row_pairs,
        };

        const SHIFT: i32 = PRECISION_BITS as i32;
        /// Vectors that are computed together; each has a row in each of its parts.
        const STRIP_VECTORS: usize = 4;
        const STRIP: usize = STRIP_VECTORS * PARTS;

        pub(in super::super) fn fits(width: u32, outputs: u32) -> bool {
            width.min(outputs) as usize * 3 >= BYTES
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn whole_parts([a, b, c, d]: [Sum; 4]) -> [V; 4] {
            [
                shift_right_signed32::<SHIFT>(total(a)),
                shift_right_signed32::<SHIFT>(total(b)),
                shift_right_signed32::<SHIFT>(total(c)),
                shift_right_signed32::<SHIFT>(total(d)),
            ]
        }

        /// Four neighbouring samples of each row, from whole steps and half steps.
        #[inline]
        #[target_feature(enable = $features)]
        fn samples(
            rows: [[&[u8]; PARTS]; STRIP_VECTORS],
            whole_steps: &[Step],
            half_steps: &[Step],
        ) -> [V; STRIP_VECTORS] {
            let mut sums = [start_sum(ROUNDING); STRIP_VECTORS];
            let mut upper = [start_upper(); STRIP_VECTORS];
            for (chunk, steps) in whole_steps.chunks(STEPS_IN_CHUNK).enumerate() {
                if chunk > 0 {
                    for index in 0..STRIP_VECTORS {
                        sums[index] = join_fours(sums[index], upper[index]);
                        upper[index] = start_upper();
                    }
                }
                for step in steps {
                    let places = repeat(&step.places);
                    let (even, odd) = (repeat(&step.even), repeat(&step.odd));
                    let weights = repeat(&step.upper);
                    for index in 0..STRIP_VECTORS {
                        let taps = gather(load_parts(rows[index], step.offset), places);
                        sums[index] = add_fours(sums[index], taps, even, odd);
                        upper[index] = add_upper_fours(upper[index], taps, weights);
                    }
                }
            }
            for step in half_steps {
                let places = repeat(&step.places);
                let (lower, weights) = (repeat(&step.even), repeat(&step.upper));
                for index in 0..STRIP_VECTORS {
                    let taps = gather(load_parts(rows[index], step.offset), places);
                    sums[index] = add_twos(sums[index], taps, lower);
                    upper[index] = add_upper_fours(upper[index], taps, weights);
                }
            }
            for index in 0..STRIP_VECTORS {
                sums[index] = join_fours(sums[index], upper[index]);
            }
            whole_parts(sums)
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn along_rows<'a>(
            row: impl Fn(usize) -> &'a [u8],
            plan: &Plan,
            stride: usize,
            out: &mut [u8],
        ) {
            let mut rows = [[row(0); PARTS]; STRIP_VECTORS];
            for (index, rows) in rows.iter_mut().enumerate() {
                for (part, slot) in rows.iter_mut().enumerate() {
                    *slot = row(index * PARTS + part);
                }
            }
            let groups = plan.steps.chunks_exact(plan.steps_per_group * GROUPS);
            for (at, steps) in groups.enumerate() {
                let group = |index: usize| {
                    let steps = &steps[index * plan.steps_per_group..][..plan.steps_per_group];
                    let (whole, half) = steps.split_at(plan.whole_steps);
                    samples(rows, whole, half)
                };
                let (a, b, c, d) = (group(0), group(1), group(2), group(3));
                for index in 0..STRIP_VECTORS {
                    let bytes = narrow_all([a[index], b[index], c[index], d[index]]);
                    let out = &mut out[index * PARTS * stride..];
                    store_parts(out, stride, at * GROUPS * SAMPLES, bytes);
                }
            }
        }

        /// Stores the samples of two rows in turns.
        #[inline]
        #[target_feature(enable = $features)]
        fn pair_up(first: &[u8], second: &[u8], out: &mut [u8]) {
            let length = first.len();
            for (block, out) in out.chunks_exact_mut(BYTES * 2).enumerate() {
                let at = (block * BYTES).min(length - BYTES);
                let (one, other) = (load(first, at), load(second, at));
                store(out, 0, low_in_turns(one, other));
                store(out, BYTES, high_in_turns(one, other));
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn along_columns(pairs: &[u8], taps: &[RowPair], out: &mut [u8]) {
            for block in 0..out.len().div_ceil(BYTES) {
                let mut sums = [start_sum(ROUNDING); 4];
                for taps in taps.chunks(PAIRS_IN_CHUNK) {
                    let mut upper = [start_upper(); 2];
                    for pair in taps {
                        let samples = &pairs[pair.offset + block * BYTES * 2..][..BYTES * 2];
                        let weights = [repeat(&pair.lower), repeat(&pair.upper)];
                        for half in 0..2 {
                            let samples = load(samples, half * BYTES);
                            sums[half * 2] = add_twos(sums[half * 2], low16(samples), weights[0]);
                            sums[half * 2 + 1] =
                                add_twos(sums[half * 2 + 1], high16(samples), weights[0]);
                            upper[half] = add_upper_twos(upper[half], samples, weights[1]);
                        }
                    }
                    for half in 0..2 {
                        let both = [sums[half * 2], sums[half * 2 + 1]];
                        [sums[half * 2], sums[half * 2 + 1]] = join_twos(both, upper[half]);
                    }
                }
                let at = (block * BYTES).min(out.len() - BYTES);
                store(out, at, narrow_all(whole_parts(sums)));
            }
        }

        #[target_feature(enable = $features)]
        pub(in super::super) fn resize(passes: Passes<'_>, buffers: &mut Buffers, out: &mut [u8]) {
            let Passes { source, columns, rows, columns_first } = passes;
            buffers.plan.fill(columns, source.row_bytes);
            if columns_first {
                columns_then_rows(source, columns, rows, buffers, out);
            } else {
                rows_then_columns(source, columns, rows, buffers, out);
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn rows_then_columns(
            source: CropRows<'_>,
            columns: &Coefficients,
            rows: &Coefficients,
            buffers: &mut Buffers,
            out: &mut [u8],
        ) {
            let Buffers { plan, taps, strip, pairs } = buffers;
            let (first, end) = rows.input_range();
            let row_bytes = columns.starts.len() * 3;
            // The last groups may have more samples than the row.
            let stride = row_bytes.next_multiple_of(GROUPS * SAMPLES);
            strip.resize(stride * STRIP, 0);
            let ring =
                Ring::new(rows.max_taps() + STRIP, row_bytes.next_multiple_of(BYTES) * 2, pairs);
            let mut filled = first;
            for (index, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                let (start, weights) = rows.taps(index);
                while filled < start + weights.len() {
                    let row = |index: usize| source.row((filled + index).min(end - 1));
                    along_rows(row, plan, stride, strip);
                    for (pair, rows) in strip.chunks_exact(stride * 2).enumerate() {
                        let (one, other) = rows.split_at(stride);
                        let out = ring.place(pairs, (filled - first) / 2 + pair);
                        pair_up(&one[..row_bytes], &other[..row_bytes], out);
                    }
                    filled += STRIP;
                }
                row_pairs(weights, start - first, ring, taps);
                along_columns(pairs, taps, out);
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn columns_then_rows(
            source: CropRows<'_>,
            columns: &Coefficients,
            rows: &Coefficients,
            buffers: &mut Buffers,
            out: &mut [u8],
        ) {
            let Buffers { plan, taps, strip, pairs } = buffers;
            let (first, end) = rows.input_range();
            let (row_bytes, out_bytes) = (source.row_bytes, columns.starts.len() * 3);
            let stride = out_bytes.next_multiple_of(GROUPS * SAMPLES);
            strip.resize((row_bytes + stride) * STRIP, 0);
            let (between, results) = strip.split_at_mut(row_bytes * STRIP);
            let ring = Ring::new(rows.max_taps() + 2, row_bytes.next_multiple_of(BYTES) * 2, pairs);
            let mut filled = first;
            for (strip, out) in out.chunks_mut(out_bytes * STRIP).enumerate() {
                let count = out.len() / out_bytes;
                for (row, between) in between.chunks_exact_mut(row_bytes).take(count).enumerate() {
                    let (start, weights) = rows.taps(strip * STRIP + row);
                    while filled < start + weights.len() {
                        let out = ring.place(pairs, (filled - first) / 2);
                        pair_up(source.row(filled), source.row((filled + 1).min(end - 1)), out);
                        filled += 2;
                    }
                    row_pairs(weights, start - first, ring, taps);
                    along_columns(pairs, taps, between);
                }
                let row = |index: usize| &between[index * row_bytes..][..row_bytes];
                along_rows(row, plan, stride, results);
                for (out, result) in
                    out.chunks_exact_mut(out_bytes).zip(results.chunks_exact(stride))
                {
                    out.copy_from_slice(&result[..out_bytes]);
                }
            }
        }
    };
}
pub(super) use resize;
