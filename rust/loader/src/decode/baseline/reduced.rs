//! Blocks at a quarter or an eighth of their size, from their lowest frequencies alone; those at half of it are `avx512`'s.

use super::scan::Group;

// What each frequency, from 0 on, adds to each sample: the square root of 2 times its cosine there.
pub(super) const QUARTER: [[f32; 2]; 2] = [[1.0, 1.0], [1.0, -1.0]];
pub(super) const EIGHTH: [[f32; 1]; 1] = [[1.0]];

/// The samples of a row of groups: N rows of `out`, `stride` bytes apart.
#[inline(always)]
pub(super) fn samples<const N: usize>(
    basis: &[[f32; N]; N],
    groups: &[Group],
    steps: &[i16; 64],
    out: &mut [u8],
    stride: usize,
) {
    for (number, group) in groups.iter().enumerate() {
        // Along the columns of all four blocks, then along the rows of each.
        let mut columns = [[0.0f32; 32]; N];
        for k in 0..N {
            for x in 0..32 {
                let value = f32::from(group[k * 32 + x]) * f32::from(steps[k * 8 + x % 8]);
                for (column, basis) in columns.iter_mut().zip(basis) {
                    column[x] += value * basis[k];
                }
            }
        }
        for (y, column) in columns.iter().enumerate() {
            let row = &mut out[y * stride + number * 4 * N..][..4 * N];
            for (block, samples) in row.chunks_exact_mut(N).enumerate() {
                let values = &column[block * 8..][..N];
                for (sample, basis) in samples.iter_mut().zip(basis) {
                    let sum: f32 = values.iter().zip(basis).map(|(a, b)| a * b).sum();
                    *sample = (sum / 8.0 + 128.5) as u8;
                }
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    use super::super::avx512;
    use super::samples;

    const HALF: [[f32; 4]; 4] = [
        [1.0, 1.306_563, 1.0, 0.541_196_1],
        [1.0, 0.541_196_1, -1.0, -1.306_563],
        [1.0, -0.541_196_1, -1.0, 1.306_563],
        [1.0, -1.306_563, 1.0, -0.541_196_1],
    ];

    proptest! {
        #[test]
        fn halves_are_those_of_the_formula(
            numbers in prop::collection::vec(-60i16..60, 512),
            steps in prop::collection::vec(1i16..20, 64),
        ) {
            if !avx512::available() {
                return Ok(());
            }
            let mut groups = [[0; 256]; 2];
            groups.as_flattened_mut().copy_from_slice(&numbers);
            let steps = steps.first_chunk::<64>().unwrap();
            let (mut ours, mut theirs) = ([0u8; 4 * 40], [0u8; 4 * 40]);
            // SAFETY: the processor has the features that the kernel is compiled for.
            unsafe { avx512::halves(&groups, steps, &mut ours, 40) };
            samples(&HALF, &groups, steps, &mut theirs, 40);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                prop_assert!(ours.abs_diff(*theirs) <= 1, "{ours} for {theirs}");
            }
        }
    }
}
