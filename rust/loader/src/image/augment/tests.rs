//! Tests: answers recorded from PIL 13.0 and torchvision, and properties of the kernels. `tests/parity/test_pixels.py` compares
//! with PIL on real images.

use prolip_jpeg::level::{Level, at, runnable};
use proptest::prelude::*;

use super::resize::{Target, kernels, resize};
use super::*;

/// An image with a fixed pattern.
fn pattern(width: u32, height: u32) -> Rgb8 {
    let pixels =
        (0..width * height * 3).map(|i| (i * 37 + i.wrapping_mul(i) % 251 * 11) as u8).collect();
    Rgb8::from_pixels(width, height, pixels).unwrap()
}

fn whole(image: &Rgb8) -> CropBox {
    CropBox { x: 0, y: 0, width: image.width(), height: image.height() }
}

fn resized(image: &Rgb8, crop: CropBox, width: u32, height: u32) -> Vec<u8> {
    let mut out = vec![0; width as usize * height as usize * 3];
    resize_box(image, crop, width, height, &mut Scratch::default(), &mut out);
    out
}

#[test]
fn resized_pixels_have_known_values() {
    let image = pattern(5, 4);
    assert_eq!(
        resized(&image, whole(&image), 3, 2),
        [146, 93, 102, 135, 92, 159, 184, 127, 147, 147, 90, 118, 143, 135, 144, 100, 143, 121]
    );
    let enlarged = resized(&image, whole(&image), 4, 6);
    assert_eq!(enlarged[..12], [34, 49, 140, 174, 43, 227, 159, 129, 227, 238, 69, 124]);
    assert_eq!(enlarged[60..], [96, 57, 114, 167, 119, 170, 88, 173, 136, 115, 176, 213]);
    let crop = CropBox { x: 2, y: 1, width: 6, height: 5 };
    assert_eq!(
        resized(&pattern(9, 7), crop, 2, 3),
        [142, 133, 106, 105, 70, 105, 150, 157, 96, 161, 109, 95, 135, 54, 128, 199, 142, 143]
    );
}

#[test]
fn tall_crops_are_resized_vertically_first() {
    let image = pattern(4, 16);
    assert_eq!(
        resized(&image, whole(&image), 3, 3),
        [
            165, 113, 128, 142, 119, 132, 105, 115, 134, 133, 105, 115, 167, 148, 127, 131, 127,
            103, 124, 130, 101, 126, 122, 123, 189, 101, 138
        ]
    );
}

#[test]
fn the_evaluation_transform_gives_known_pixels() {
    let mut out = vec![0; 48];
    evaluate(&pattern(9, 7), 4, &mut Scratch::default(), &mut out);
    assert_eq!(
        out,
        [
            127, 75, 173, 163, 90, 189, 179, 115, 107, 135, 81, 71, 105, 146, 176, 139, 189, 127,
            132, 142, 53, 118, 75, 93, 138, 124, 113, 179, 100, 136, 125, 101, 122, 217, 121, 125,
            119, 129, 69, 92, 106, 86, 117, 83, 162, 181, 151, 155
        ]
    );
}

#[test]
fn colour_changes_give_known_pixels() {
    type Adjust = fn(&mut [u8]);
    let answers: [(Adjust, [u8; 18]); 5] = [
        (
            |pixels| adjust_brightness(pixels, 1.3),
            [0, 62, 153, 255, 88, 255, 137, 39, 255, 255, 246, 255, 255, 46, 148, 255, 175, 29],
        ),
        (
            |pixels| adjust_contrast(pixels, 0.6),
            [46, 74, 116, 172, 86, 168, 109, 63, 185, 166, 160, 167, 187, 67, 114, 174, 127, 59],
        ),
        (
            |pixels| adjust_saturation(pixels, 1.4),
            [0, 50, 148, 243, 44, 235, 118, 11, 255, 202, 188, 205, 255, 8, 117, 241, 130, 0],
        ),
        (
            |pixels| adjust_hue(pixels, -0.2),
            [0, 118, 44, 68, 92, 210, 30, 201, 232, 190, 195, 202, 116, 36, 236, 214, 23, 140],
        ),
        (
            gray,
            [42, 42, 42, 126, 126, 126, 76, 76, 76, 194, 194, 194, 105, 105, 105, 146, 146, 146],
        ),
    ];
    for (adjust, expected) in answers {
        let mut pixels = pattern(3, 2).pixels().to_vec();
        adjust(&mut pixels);
        assert_eq!(pixels, expected);
    }
}

#[test]
fn colour_changes_are_applied_in_the_drawn_order() {
    let jitter = JitterDraw {
        brightness: Some(1.3),
        contrast: Some(0.6),
        saturation: None,
        hue: Some(-0.2),
        order: [3, 2, 0, 1],
    };
    let mut pixels = pattern(3, 2).pixels().to_vec();
    let mut expected = pixels.clone();
    colour_jitter(&mut pixels, &jitter);
    adjust_hue(&mut expected, -0.2);
    adjust_brightness(&mut expected, 1.3);
    adjust_contrast(&mut expected, 0.6);
    assert_eq!(pixels, expected);
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
            at(level, || by_level::by_level!(shift_hue(&mut pixels, shift)));
            assert!(pixels == expected, "{level:?}, shift {shift}");
        }
    }
}

#[test]
#[ignore = "every colour under every shift of hue: minutes, for a change of the kernel"]
fn hue_kernels_agree_on_all_colours() {
    for shift in 0..=255 {
        for red in 0..=255u8 {
            let colours: Vec<u8> = (0..=255u8)
                .flat_map(|green| (0..=255u8).flat_map(move |blue| [red, green, blue]))
                .collect();
            let mut portable = colours.clone();
            portable::shift_hue(&mut portable, shift);
            for level in runnable() {
                let mut pixels = colours.clone();
                at(level, || by_level::by_level!(shift_hue(&mut pixels, shift)));
                assert!(portable == pixels, "{level:?}, shift {shift}, red {red}");
            }
        }
    }
}

#[test]
fn resize_kernels_agree_at_the_sizes_of_photographs() {
    for (width, height) in [(468, 401), (200, 900), (40, 700), (900, 60), (11, 11)] {
        let image = pattern(width, height);
        let results: Vec<_> = runnable()
            .map(|level| at(level, || resized(&image, whole(&image), 224, 224)))
            .collect();
        for result in &results {
            assert!(*result == results[0], "{width} x {height}");
        }
    }
}

/// The tests that compare the levels would otherwise compare a slower level with itself.
#[test]
fn every_level_has_its_own_resize() {
    let target = Target { width: 224, height: 224, window: CropBox::whole(224, 224) };
    for level in runnable() {
        assert_eq!(at(level, || kernels(CropBox::whole(468, 401), target)), level);
    }
}

/// Prints the kernels' times for docs/kernels.md: `cargo test --release print_kernel_times -- --ignored --nocapture`.
#[test]
#[ignore = "prints microseconds per image for each set of kernels"]
fn print_kernel_times() {
    let image = pattern(468, 401);
    let crop = CropBox { x: 12, y: 9, width: 440, height: 380 };
    let pixels = resized(&image, crop, 224, 224);
    let mut scratch = Scratch::default();
    for level in runnable() {
        let time = |name: &str, work: &mut dyn FnMut(&mut [u8])| {
            let mut times: Vec<_> = (0..101)
                .map(|_| {
                    let mut out = pixels.clone();
                    let begun = std::time::Instant::now();
                    at(level, || work(&mut out));
                    begun.elapsed().as_secs_f64() * 1e6
                })
                .collect();
            times.sort_by(f64::total_cmp);
            println!(
                "{level:?} {name}: {:.0} us, fastest {:.0}, slowest tenth {:.0}",
                times[50], times[0], times[90]
            );
        };
        time("resize", &mut |out| {
            resize_box(&image, crop, 224, 224, &mut scratch, out);
        });
        time("brightness", &mut |out| adjust_brightness(out, 1.0137));
        time("contrast", &mut |out| adjust_contrast(out, 0.9863));
        time("saturation", &mut |out| adjust_saturation(out, 1.0137));
        time("hue", &mut |out| adjust_hue(out, 0.02));
        time("grey", &mut |out| gray(out));
        time("grey of a sum", &mut |out| {
            std::hint::black_box(gray::luma_sum(out));
        });
    }
}

/// A noise image, a crop of it, and a target size.
fn resizings() -> impl Strategy<Value = (Rgb8, CropBox, u32, u32)> {
    (1u32..120, 1u32..120, any::<u64>(), 1u32..60, 1u32..60).prop_map(
        |(width, height, seed, to_width, to_height)| {
            let mut rng = SampleRng::new(seed, 0, 0, 0);
            // Sums overshoot at extreme values.
            let mut sample = || {
                if rng.chance(0.5) { (rng.below(2) * 255) as u8 } else { rng.below(256) as u8 }
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

/// Fewer outputs than fit into a vector, with far more samples between them than fit.
#[test]
fn resize_kernels_agree_for_few_outputs_of_wide_rows() {
    let (width, height) = (400, 3);
    let pixels = (0..width * height * 3).map(|byte| (byte * 37 % 251) as u8).collect();
    let image = Rgb8::from_pixels(width, height, pixels).unwrap();
    for outputs in 1..6 {
        let of_level =
            |level| at(level, || resized(&image, CropBox::whole(width, height), outputs, 3));
        let expected = of_level(Level::Portable);
        for level in runnable() {
            assert_eq!(of_level(level), expected, "{outputs} outputs, {level:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn resize_kernels_agree_for_any_crop_and_size((image, crop, width, height) in resizings(), seed in any::<u64>()) {
        let mut rng = SampleRng::new(seed, 0, 0, 0);
        let (x, y) = (rng.below(width), rng.below(height));
        let window = CropBox { x, y, width: 1 + rng.below(width - x), height: 1 + rng.below(height - y) };
        let target = Target { width, height, window };
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
        let full = resized(&image, crop, width, height);
        let row_bytes = window.width as usize * 3;
        for (row, part) in (y..).zip(portable.chunks_exact(row_bytes)) {
            let at = (row as usize * width as usize + x as usize) * 3;
            prop_assert_eq!(part, &full[at..at + row_bytes]);
        }
    }

    #[test]
    fn resizing_to_the_same_size_changes_nothing((image, crop, _, _) in resizings()) {
        let same = resized(&image, crop, crop.width, crop.height);
        let stride = image.width() as usize * 3;
        let row_bytes = crop.width as usize * 3;
        for (row, part) in same.chunks_exact(row_bytes).enumerate() {
            let at = (crop.y as usize + row) * stride + crop.x as usize * 3;
            prop_assert_eq!(part, &image.pixels()[at..at + row_bytes]);
        }
    }

    #[test]
    fn neutral_factors_do_not_change_colours((image, _, _, _) in resizings()) {
        let mut pixels = image.pixels().to_vec();
        adjust_brightness(&mut pixels, 1.0);
        adjust_contrast(&mut pixels, 1.0);
        adjust_saturation(&mut pixels, 1.0);
        prop_assert_eq!(image.pixels(), &pixels);
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
