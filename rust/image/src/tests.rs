//! Tests: answers recorded from PIL 13.0 and torchvision, and properties of the kernels. `tests/parity/test_pixels.py` compares
//! with PIL on real images.

use prolip_jpeg::simd::{at, runnable};
use proptest::prelude::*;

use super::resize::{Target, level_for, resize};
use super::*;

/// Random numbers (splitmix64).
struct Draws(u64);

impl Draws {
    /// A number in `0..end`.
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % u64::from(end)) as u32
    }
}

const FILTERS: [Filter; 6] = [
    Filter::Nearest,
    Filter::Box,
    Filter::Bilinear,
    Filter::Hamming,
    Filter::Bicubic,
    Filter::Lanczos,
];

fn resized(image: &Rgb8, crop: CropBox, filter: Filter, width: u32, height: u32) -> Vec<u8> {
    let mut out = vec![0; width as usize * height as usize * 3];
    resize_box(image, crop, filter, [width, height], &mut Scratch::default(), &mut out);
    out
}

/// Such images have as many weights as pixels, so they are resized in parts: at every level, with little memory, and soon.
#[test]
fn images_of_a_few_rows_or_columns_are_resized_in_parts() {
    let long = 2_000_000;
    for (width, height) in [(long, 1), (1, long), (long / 5, 5)] {
        let mut rng = Draws(u64::from(width));
        let pixels = (0..width * height * 3).map(|_| rng.below(256) as u8).collect();
        let image = Rgb8::from_pixels(width, height, pixels).unwrap();
        for filter in FILTERS {
            let crop = CropBox::whole(width, height);
            let results: Vec<_> = runnable()
                .map(|level| at(level, || resized(&image, crop, filter, 224, 32)))
                .collect();
            assert!(results.iter().all(|one| *one == results[0]), "{filter:?} {width} x {height}");
        }
    }
}

/// Colours in steps of 5: corners and edges of the cube, greys, and every order of the channels.
fn colour_cube() -> Vec<u8> {
    let levels = || (0..=255u8).step_by(5);
    levels()
        .flat_map(|r| levels().flat_map(move |g| levels().flat_map(move |b| [r, g, b])))
        .collect()
}

#[test]
fn colour_kernels_agree_on_a_cube_of_colours() {
    let cube = colour_cube();
    let agree = |change: &dyn Fn(&mut [u8])| {
        let changed = runnable().map(|level| {
            let mut pixels = cube.clone();
            at(level, || change(&mut pixels));
            (level, pixels)
        });
        let results: Vec<_> = changed.collect();
        for (level, pixels) in &results {
            assert!(*pixels == results[0].1, "{level:?}");
        }
    };
    agree(&gray);
    // Factors in whole numbers, in single precision because a product is nearly whole (1.1), and beyond 2.
    for factor in [0.6837, 0.9, 1.1, 1.3159, 2.5, -0.5137] {
        agree(&|pixels| adjust_saturation(pixels, factor));
        agree(&|pixels| adjust_brightness(pixels, factor));
        agree(&|pixels| adjust_contrast(pixels, factor));
    }
    for shift in [0.0, 0.004, 0.08, 0.5, -0.08, -0.4] {
        agree(&|pixels| adjust_hue(pixels, shift));
    }
    let sums: Vec<_> = runnable().map(|level| at(level, || gray::luma_sum(&cube))).collect();
    assert!(sums.iter().all(|&sum| sum == sums[0]), "{sums:?}");
}

/// All colours with a channel that is 0 or 255: they have every hue, and every order of the channels.
#[test]
fn hue_kernels_agree_on_the_faces_of_the_cube() {
    let levels = || 0..=255u8;
    let faces = [0, 255].into_iter().flat_map(|end| {
        let pairs = levels().flat_map(move |one| levels().map(move |other| (one, other)));
        pairs.flat_map(move |(one, other)| [end, one, other, one, end, other, one, other, end])
    });
    let colours: Vec<u8> = faces.collect();
    for shift in [0, 100] {
        let mut expected = colours.clone();
        portable::shift_hue(&mut expected, shift);
        for level in runnable() {
            let mut pixels = colours.clone();
            at(level, || by_simd::by_simd!(shift_hue(&mut pixels, shift)));
            assert!(pixels == expected, "{level:?}, shift {shift}");
        }
    }
}

/// The tests that compare the levels would otherwise compare a slower level with itself.
#[test]
fn every_level_has_its_own_resize() {
    let target = Target {
        width: 224,
        height: 224,
        window: CropBox::whole(224, 224),
        filter: Filter::Bicubic,
    };
    for level in runnable() {
        assert_eq!(at(level, || level_for(CropBox::whole(468, 401), target)), level);
    }
}

/// A noise image, a crop of it, and a target size.
fn resizings() -> impl Strategy<Value = (Rgb8, CropBox, u32, u32)> {
    let widths = prop_oneof![4 => 1u32..120, 1 => Just(400)];
    (widths, 1u32..120, any::<u64>(), 1u32..60, 1u32..60).prop_map(
        |(width, height, seed, to_width, to_height)| {
            let mut rng = Draws(seed);
            // Sums overshoot at extreme values.
            let mut sample = || {
                if rng.below(2) == 0 { (rng.below(2) * 255) as u8 } else { rng.below(256) as u8 }
            };
            let pixels = (0..width * height * 3).map(|_| sample()).collect();
            let (x, y) = (rng.below(width), rng.below(height));
            let crop = CropBox {
                x,
                y,
                width: 1 + rng.below(width - x),
                height: 1 + rng.below(height - y),
            };
            (Rgb8::from_pixels(width, height, pixels).unwrap(), crop, to_width, to_height)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn resize_kernels_agree_for_any_crop_and_size((image, crop, width, height) in resizings(), filter in prop::sample::select(&FILTERS), seed in any::<u64>()) {
        let mut rng = Draws(seed);
        let (x, y) = (rng.below(width), rng.below(height));
        let window = CropBox { x, y, width: 1 + rng.below(width - x), height: 1 + rng.below(height - y) };
        let target = Target { width, height, window, filter };
        let mut buffers = Scratch::default();
        let results: Vec<Vec<u8>> = runnable()
            .map(|level| {
                let mut pixels = vec![0; window.width as usize * window.height as usize * 3];
                at(level, || resize(&image, crop, target, &mut buffers, &mut pixels));
                // The buffers must not influence a second call.
                let mut again = vec![0; pixels.len()];
                at(level, || resize(&image, crop, target, &mut buffers, &mut again));
                assert!(pixels == again, "{level:?}");
                pixels
            })
            .collect();
        for result in &results {
            prop_assert!(*result == results[0]);
        }
        let portable = &results[0];
        // A window of the result equals that part of the whole result.
        let full = resized(&image, crop, filter, width, height);
        let row_bytes = window.width as usize * 3;
        for (row, part) in (y..).zip(portable.chunks_exact(row_bytes)) {
            let at = (row as usize * width as usize + x as usize) * 3;
            prop_assert_eq!(part, &full[at..at + row_bytes]);
        }
    }

    #[test]
    fn pixels_outside_the_part_of_a_fit_have_no_influence((image, _, width, height) in resizings(), filter in prop::sample::select(&FILTERS), mode in prop::sample::select(&[Mode::Shortest, Mode::Squash, Mode::Longest])) {
        let fit = Fit { resize: mode, filter, ..Fit::default() };
        let (columns, rows) = (image.width(), image.height());
        let part = fit.part([columns, rows], [width, height]);
        part.check(columns, rows);
        let mut changed = image.clone();
        for (place, pixel) in changed.buffer.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (x, y) = (place as u32 % columns, place as u32 / columns);
            let is_inside = (part.x..part.x + part.width).contains(&x) && (part.y..part.y + part.height).contains(&y);
            *pixel = if is_inside { *pixel } else { pixel.map(|value| !value) };
        }
        let of = |image: &Rgb8| {
            let mut out = vec![0; width as usize * height as usize * 3];
            fit.apply(image, [width, height], &mut Scratch::default(), &mut out);
            out
        };
        prop_assert!(of(&image) == of(&changed));
    }

    #[test]
    fn resizing_to_the_same_size_changes_nothing((image, crop, _, _) in resizings(), filter in prop::sample::select(&FILTERS)) {
        let same = resized(&image, crop, filter, crop.width, crop.height);
        let stride = image.width() as usize * 3;
        let row_bytes = crop.width as usize * 3;
        for (row, part) in same.chunks_exact(row_bytes).enumerate() {
            let at = (crop.y as usize + row) * stride + crop.x as usize * 3;
            prop_assert_eq!(part, &image.pixels()[at..at + row_bytes]);
        }
    }

    #[test]
    fn colour_kernels_agree_at_any_length((image, _, _, _) in resizings(), factor in 0f32..2.0, shift in -0.5f32..0.5) {
        let results: Vec<_> = runnable().map(|level| at(level, || {
            let mut pixels = image.pixels().to_vec();
            adjust_brightness(&mut pixels, factor);
            adjust_saturation(&mut pixels, factor);
            adjust_hue(&mut pixels, shift);
            adjust_contrast(&mut pixels, factor);
            let sum = gray::luma_sum(&pixels);
            let coloured = pixels.clone();
            gray(&mut pixels);
            (coloured, sum, pixels)
        })).collect();
        for result in &results {
            prop_assert!(*result == results[0]);
        }
    }
}
