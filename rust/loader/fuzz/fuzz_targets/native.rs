//! Any image at its own aspect ratio: the grid is the largest that is allowed, and patches and their normalised values equal a
//! plain computation with all vector instructions of the processor. Buffers are fresh, and so no longer than they must be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prolip_image::{
    AugmentDraw, CropBox, Filter, Rgb8, Scratch, ValueTable, apply, apply_in_patches, grid_of,
};
use prolip_jpeg::simd::{at, runnable};

/// More columns than a vector has, and some.
const MAX_SIDE: u32 = 160;

fuzz_target!(|input: (u8, u8, u8, u8, u64, &[u8])| {
    let (width, height, patch, max_patches, seed, samples) = input;
    let side = |byte: u8, most: u32| 1 + u32::from(byte) % most;
    let (width, height) = (side(width, MAX_SIDE), side(height, MAX_SIDE));
    let (patch, max_patches) = (side(patch, 20), side(max_patches, 96));
    check_grid(seed as u16, (seed >> 16) as u16, patch, max_patches);
    let (rows, columns) = check_grid(height as u16, width as u16, patch, max_patches);

    let samples = if samples.is_empty() { b"\0" } else { samples };
    let taken = |count: usize| samples.iter().copied().cycle().take(count).collect::<Vec<u8>>();
    let pixels = taken(width as usize * height as usize * 3);
    let image = Rgb8::from_pixels(width, height, pixels).expect("as many samples as it has");
    let filter = Filter::ALL[(seed >> 32) as usize % Filter::ALL.len()];
    let whole = AugmentDraw::of(CropBox::whole(width, height));
    let fresh = || vec![0; (rows * columns * patch * patch * 3) as usize];
    let mut resized = fresh();
    apply(
        &image,
        &whole,
        filter,
        [columns * patch, rows * patch],
        &mut Scratch::default(),
        &mut resized,
    );
    let expected = cut(&resized, patch as usize, columns as usize);
    let tables = [2, 4].map(|bytes| taken(3 * 256 * bytes));
    for level in runnable() {
        at(level, || {
            let (mut patches, mut scratch) = (fresh(), Scratch::default());
            // What an image leaves in the buffers is not seen by the next.
            for _ in 0..2 {
                apply_in_patches(
                    &image,
                    &whole,
                    filter,
                    patch,
                    (rows, columns),
                    &mut scratch,
                    &mut patches,
                );
                assert!(patches == expected, "{level:?}");
            }
            for table in &tables {
                check_values(table, &patches);
            }
        });
    }
});

/// A larger ratio of sizes gives too many patches, and this one not.
fn check_grid(height: u16, width: u16, patch: u32, max_patches: u32) -> (u32, u32) {
    let sides = [height, width].map(|side| u32::from(side).max(1));
    let (rows, columns) = grid_of(sides[0], sides[1], patch, max_patches);
    assert!(rows >= 1 && columns >= 1 && rows * columns <= max_patches);
    // The ratios at which each count of patches begins and ends.
    let ratio = |count: u32, side: u32| f64::from(count * patch) / f64::from(side);
    let begins = ratio(rows - 1, sides[0]).max(ratio(columns - 1, sides[1]));
    let ends = ratio(rows, sides[0]).min(ratio(columns, sides[1]));
    assert!(begins <= ends + 1e-9, "{rows} x {columns} patches have another shape than the image");
    let larger = sides.map(|side| (f64::from(side) * (ends + 2e-5) / f64::from(patch)).ceil());
    assert!(ends > 99.9 || larger[0] * larger[1] > f64::from(max_patches), "more would fit");
    (rows, columns)
}

/// Patches of rows of pixels, pixel by pixel.
fn cut(pixels: &[u8], patch: usize, columns: usize) -> Vec<u8> {
    let mut patches = vec![0; pixels.len()];
    for (place, pixel) in pixels.chunks_exact(3).enumerate() {
        let (y, x) = (place / (columns * patch), place % (columns * patch));
        let number = y / patch * columns + x / patch;
        let to = (number * patch + y % patch) * patch + x % patch;
        patches[3 * to..][..3].copy_from_slice(pixel);
    }
    patches
}

fn check_values(table: &[u8], pixels: &[u8]) {
    let width = table.len() / (3 * 256);
    let values = ValueTable::new(table.to_vec());
    assert_eq!(values.width(), width);
    let entry = |place: usize| {
        let row = 256 * (place % 3) + usize::from(pixels[place]);
        &table[width * row..][..width]
    };
    let mut out = vec![0; pixels.len() * width];
    values.translate(pixels, &mut out);
    assert!(out.chunks_exact(width).enumerate().all(|(place, value)| value == entry(place)));
    let (mut planes, count) = (vec![0; out.len()], pixels.len() / 3);
    values.translate_to_planes(pixels, &mut planes);
    let plane = |place: usize| place % count * 3 + place / count;
    assert!(
        planes.chunks_exact(width).enumerate().all(|(place, value)| value == entry(plane(place)))
    );
}
