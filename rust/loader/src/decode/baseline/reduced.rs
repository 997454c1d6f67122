//! Blocks at a half, a quarter or an eighth of their size, from their lowest frequencies alone.

use super::scan::Group;

// What each frequency, from 0 on, adds to each sample: the square root of 2 times its cosine there.
pub(super) const HALF: [[f32; 4]; 4] = [
    [1.0, 1.306_563, 1.0, 0.541_196_1],
    [1.0, 0.541_196_1, -1.0, -1.306_563],
    [1.0, -0.541_196_1, -1.0, 1.306_563],
    [1.0, -1.306_563, 1.0, -0.541_196_1],
];
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
