//! Images cut into patches.

use crate::augment::{AugmentDraw, apply};
use crate::{Filter, Rgb8, Scratch};

/// As [`apply`], to a grid of patches, row by row, each with its pixels row by row: `rows * columns * patch * patch * 3` bytes.
pub fn apply_in_patches(
    image: &Rgb8,
    draw: &AugmentDraw,
    filter: Filter,
    patch: u32,
    (rows, columns): (u32, u32),
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    let mut pixels = std::mem::take(&mut scratch.image);
    pixels.resize(out.len(), 0);
    apply(image, draw, filter, [columns * patch, rows * patch], scratch, &mut pixels);
    let (side, run) = (patch as usize, patch as usize * 3);
    let line = columns as usize * run;
    let strips = pixels.chunks_exact(line * side);
    for (strip, out) in strips.zip(out.chunks_exact_mut(line * side)) {
        for (y, line) in strip.chunks_exact(line).enumerate() {
            for (out, run) in out.chunks_exact_mut(run * side).zip(line.chunks_exact(run)) {
                out[y * run.len()..][..run.len()].copy_from_slice(run);
            }
        }
    }
    scratch.image = pixels;
}
