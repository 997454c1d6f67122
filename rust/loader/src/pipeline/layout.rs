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

/// The first patch of each image, and the end of the last one. In a packed batch an image has as many patches as its grid,
/// which fills the image's share of those that are left.
pub(crate) fn starts(
    dataset: &Dataset,
    provider: Option<&dyn ShardProvider>,
    reader: &mut Reader,
    plan: &BatchPlan,
) -> Vec<usize> {
    let (seq_len, rows) = (plan.seq_len.max(1) as usize, plan.samples.len());
    let Some(native) = dataset.config.native.as_ref().filter(|native| native.packed) else {
        return (0..=rows).map(|row| row * seq_len).collect();
    };
    let (mut starts, mut end) = (vec![0], 0);
    for (row, &id) in plan.samples.iter().enumerate() {
        let size = reader.size(&dataset.index, provider, id);
        let [mut width, mut height] = size.unwrap_or(UNKNOWN);
        if let Some(augment) = &dataset.config.augment {
            let mut rng = dataset.rng(plan, row, id, stream::AUGMENT);
            let crop = augment::draw_native(augment, width, height, &mut rng).crop;
            (width, height) = (crop.width, crop.height);
        }
        let share = (rows * seq_len - end) / (rows - row);
        let share = (share as u32).min(MAX_SEQ_LEN);
        let (down, across) = grid_of(height, width, native.patch_size, share);
        end += down as usize * across as usize;
        starts.push(end);
    }
    starts
}
