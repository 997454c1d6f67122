//! Where the images of a batch are in its memory.

use super::dataset::Dataset;
use crate::archive::Reader;
use crate::config::MAX_SEQ_LEN;
use crate::image::{augment, grid_of};
use crate::order::BatchPlan;
use crate::remote::ShardProvider;
use crate::rng::stream;

/// Stands for the sides of an image that does not tell them.
const UNKNOWN: [u32; 2] = [1024; 2];

/// The first patch of each image, and the end of the last one. In a packed batch an image has as many patches as its grid.
pub(crate) fn starts(
    dataset: &Dataset,
    provider: Option<&dyn ShardProvider>,
    reader: &mut Reader,
    plan: &BatchPlan,
) -> Vec<usize> {
    let (seq_len, rows) = (plan.seq_len.max(1), plan.samples.len());
    let Some(native) = dataset.config.native.as_ref().filter(|native| native.packed) else {
        return (0..=rows).map(|row| row * seq_len as usize).collect();
    };
    let sizes = plan.samples.iter().enumerate().map(|(row, &id)| {
        let size = reader.size(&dataset.index, provider, id);
        let [width, height] = size.unwrap_or(UNKNOWN);
        let Some(augment) = &dataset.config.augment else { return (height, width) };
        let mut rng = dataset.rng(plan, row, id, stream::AUGMENT);
        let crop = augment::draw_native(augment, width, height, &mut rng).crop;
        (crop.height, crop.width)
    });
    let mut starts = vec![0];
    for (down, across) in fill(&sizes.collect::<Vec<_>>(), native.patch_size, seq_len) {
        starts.push(starts[starts.len() - 1] + (down * across) as usize);
    }
    starts
}

/// The grid of each image: of at most `seq_len` patches; then, while there is room, one after the other gets up to a quarter
/// more, up to a half more, and so on.
fn fill(sizes: &[(u32, u32)], patch_size: u32, seq_len: u32) -> Vec<(u32, u32)> {
    let mut grids = vec![(0, 0); sizes.len()];
    let mut left = sizes.len() as u32 * seq_len;
    for quarters in 4..=8 {
        for (grid, &(height, width)) in grids.iter_mut().zip(sizes) {
            let own = grid.0 * grid.1;
            let most = (seq_len * quarters / 4).min(own + left).min(MAX_SEQ_LEN);
            *grid = grid_of(height, width, patch_size, most);
            left -= grid.0 * grid.1 - own;
        }
    }
    grids
}
