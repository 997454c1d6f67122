//! The grid of patches that an image at its own aspect ratio is resized to.

const PRECISION: f64 = 1e-5;
const MAX_RATIO: f64 = 100.0;

/// Rows and columns of the largest grid of at most `max_patches` patches with the aspect ratio of an image, rounded up in both
/// directions: timm's `get_image_size_for_seq`, where that gives any.
pub fn grid_of(height: u32, width: u32, patch_size: u32, max_patches: u32) -> (u32, u32) {
    let grid = |ratio: f64| {
        let patches = |side: u32| (f64::from(side) * ratio / f64::from(patch_size)).ceil().max(1.0);
        (patches(height), patches(width))
    };
    let (mut low, mut high) = (PRECISION / 10.0, MAX_RATIO);
    while high - low >= PRECISION {
        let middle = (low + high) / 2.0;
        let (rows, columns) = grid(middle);
        if rows * columns <= f64::from(max_patches) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let (rows, columns) = grid(low);
    // Even the smallest ratio may be too large for a very long image.
    let rows = (rows as u32).min(max_patches);
    (rows, (columns as u32).min(max_patches / rows))
}
