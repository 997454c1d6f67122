//! Known answers (PIL's and torchvision's, recorded with Pillow 13.0) and properties of the kernels. The
//! comparison with PIL on real pictures is `tests/parity/test_pixels.py`.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::resize::{Buffers, Target, portable_resize, resize};
use super::*;

/// A picture of a fixed pattern.
fn picture(width: u32, height: u32) -> Rgb8 {
    let pixels = (0..width * height * 3)
        .map(|i| (i * 37 + (i * i) % 251 * 11) as u8)
        .collect();
    Rgb8::from_pixels(width, height, pixels).unwrap()
}

fn whole(image: &Rgb8) -> CropBox {
    CropBox {
        x: 0,
        y: 0,
        width: image.width(),
        height: image.height(),
    }
}

fn resized(image: &Rgb8, crop: CropBox, width: u32, height: u32) -> Vec<u8> {
    let mut out = vec![0; width as usize * height as usize * 3];
    resize_box(
        image,
        crop,
        width,
        height,
        &mut Scratch::default(),
        &mut out,
    );
    out
}

#[test]
fn resize_known_answers() {
    let image = picture(5, 4);
    assert_eq!(
        resized(&image, whole(&image), 3, 2),
        [
            146, 93, 102, 135, 92, 159, 184, 127, 147, 147, 90, 118, 143, 135, 144, 100, 143, 121
        ]
    );
    let enlarged = resized(&image, whole(&image), 4, 6);
    assert_eq!(
        enlarged[..12],
        [34, 49, 140, 174, 43, 227, 159, 129, 227, 238, 69, 124]
    );
    assert_eq!(
        enlarged[60..],
        [96, 57, 114, 167, 119, 170, 88, 173, 136, 115, 176, 213]
    );
    let crop = CropBox {
        x: 2,
        y: 1,
        width: 6,
        height: 5,
    };
    assert_eq!(
        resized(&picture(9, 7), crop, 2, 3),
        [
            142, 133, 106, 105, 70, 105, 150, 157, 96, 161, 109, 95, 135, 54, 128, 199, 142, 143
        ]
    );
}

#[test]
fn tall_crops_are_resized_along_the_columns_first() {
    let image = picture(4, 16);
    assert_eq!(
        resized(&image, whole(&image), 3, 3),
        [
            165, 113, 128, 142, 119, 132, 105, 115, 134, 133, 105, 115, 167, 148, 127, 131, 127,
            103, 124, 130, 101, 126, 122, 123, 189, 101, 138
        ]
    );
}

#[test]
fn evaluate_known_answer() {
    let mut out = vec![0; 48];
    evaluate(&picture(9, 7), 4, &mut Scratch::default(), &mut out);
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
fn colour_known_answers() {
    type Adjust = fn(&mut [u8]);
    let answers: [(Adjust, [u8; 18]); 5] = [
        (
            |pixels| adjust_brightness(pixels, 1.3),
            [
                0, 62, 153, 255, 88, 255, 137, 39, 255, 255, 246, 255, 255, 46, 148, 255, 175, 29,
            ],
        ),
        (
            |pixels| adjust_contrast(pixels, 0.6),
            [
                46, 74, 116, 172, 86, 168, 109, 63, 185, 166, 160, 167, 187, 67, 114, 174, 127, 59,
            ],
        ),
        (
            |pixels| adjust_saturation(pixels, 1.4),
            [
                0, 50, 148, 243, 44, 235, 118, 11, 255, 202, 188, 205, 255, 8, 117, 241, 130, 0,
            ],
        ),
        (
            |pixels| adjust_hue(pixels, -0.2),
            [
                0, 118, 44, 68, 92, 210, 30, 201, 232, 190, 195, 202, 116, 36, 236, 214, 23, 140,
            ],
        ),
        (
            gray,
            [
                42, 42, 42, 126, 126, 126, 76, 76, 76, 194, 194, 194, 105, 105, 105, 146, 146, 146,
            ],
        ),
    ];
    for (adjust, expected) in answers {
        let mut pixels = picture(3, 2).pixels().to_vec();
        adjust(&mut pixels);
        assert_eq!(pixels, expected);
    }
}

#[test]
fn colours_in_their_order() {
    let jitter = JitterDraw {
        brightness: Some(1.3),
        contrast: Some(0.6),
        saturation: None,
        hue: Some(-0.2),
        order: [3, 2, 0, 1],
    };
    let mut pixels = picture(3, 2).pixels().to_vec();
    let mut expected = pixels.clone();
    colour_jitter(&mut pixels, &jitter);
    adjust_hue(&mut expected, -0.2);
    adjust_brightness(&mut expected, 1.3);
    adjust_contrast(&mut expected, 0.6);
    assert_eq!(pixels, expected);
}

/// Colours 5 apart: the corners and edges of the cube, greys, and each order of the channels.
fn colour_cube() -> Vec<u8> {
    let levels = || (0..=255u8).step_by(5);
    levels()
        .flat_map(|r| levels().flat_map(move |g| levels().flat_map(move |b| [r, g, b])))
        .collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn colour_kernels_agree_on_the_cube() {
    if !avx512::available() {
        return;
    }
    let cube = colour_cube();
    let agree = |portable: &dyn Fn(&mut [u8]), vector: &dyn Fn(&mut [u8])| {
        let (mut one, mut other) = (cube.clone(), cube.clone());
        portable(&mut one);
        vector(&mut other);
        assert!(one == other);
    };
    // SAFETY (of all four): the processor has the features, as checked above.
    agree(&|pixels| gray::portable_gray(pixels), &|pixels| unsafe {
        avx512::colour::gray(pixels)
    });
    for factor in [0.68, 0.9, 1.1, 1.32, 2.5, -0.5] {
        agree(
            &|pixels| colour::saturate(pixels, factor),
            &|pixels| unsafe { avx512::colour::saturate(pixels, factor) },
        );
    }
    for shift in [0, 1, 20, 128, 236] {
        agree(&|pixels| hue::shift_hue(pixels, shift), &|pixels| unsafe {
            avx512::colour::shift_hue(pixels, shift)
        });
    }
    assert_eq!(gray::portable_luma_sum(&cube), unsafe {
        avx512::colour::luma_sum(&cube)
    });
}

#[test]
#[ignore = "every colour under every shift of hue: minutes, for a change of the kernel"]
#[cfg(target_arch = "x86_64")]
fn hue_kernels_agree_on_all_colours() {
    if !avx512::available() {
        return;
    }
    for shift in 0..=255 {
        for red in 0..=255u8 {
            let mut portable: Vec<u8> = (0..=255u8)
                .flat_map(|green| (0..=255u8).flat_map(move |blue| [red, green, blue]))
                .collect();
            let mut vector = portable.clone();
            hue::shift_hue(&mut portable, shift);
            // SAFETY: the processor has the features, as checked above.
            unsafe { avx512::colour::shift_hue(&mut vector, shift) };
            assert!(portable == vector, "shift {shift}, red {red}");
        }
    }
}

/// A picture of noise, a crop of it, and a size to resize that to.
fn resizings() -> impl Strategy<Value = (Rgb8, CropBox, u32, u32)> {
    (1u32..120, 1u32..120, any::<u64>(), 1u32..60, 1u32..60).prop_map(
        |(width, height, seed, to_width, to_height)| {
            let mut rng = SampleRng::new(seed, 0, 0, 0);
            // Extremes are where the sums overshoot.
            let mut sample = || {
                if rng.chance(0.5) {
                    (rng.below(2) * 255) as u8
                } else {
                    rng.below(256) as u8
                }
            };
            let pixels = (0..width * height * 3).map(|_| sample()).collect();
            let (x, y) = (rng.below(width), rng.below(height));
            let crop = CropBox {
                x,
                y,
                width: 1 + rng.below(width - x),
                height: 1 + rng.below(height - y),
            };
            (
                Rgb8::from_pixels(width, height, pixels).unwrap(),
                crop,
                to_width,
                to_height,
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn resize_kernels_agree((image, crop, width, height) in resizings(), seed in any::<u64>()) {
        let mut rng = SampleRng::new(seed, 0, 0, 0);
        let (x, y) = (rng.below(width), rng.below(height));
        let window = CropBox { x, y, width: 1 + rng.below(width - x), height: 1 + rng.below(height - y) };
        let target = Target { width, height, window };
        let mut portable = vec![0; window.width as usize * window.height as usize * 3];
        let mut fastest = vec![0; portable.len()];
        portable_resize(&image, crop, target, &mut Buffers::default(), &mut portable);
        let mut buffers = Buffers::default();
        resize(&image, crop, target, &mut buffers, &mut fastest);
        prop_assert!(portable == fastest);
        // Nothing is left in the buffers that a second call would see.
        resize(&image, crop, target, &mut buffers, &mut fastest);
        prop_assert!(portable == fastest);
        // A window of the result is that part of the whole result.
        let full = resized(&image, crop, width, height);
        let row_bytes = window.width as usize * 3;
        for (row, part) in (y..).zip(portable.chunks_exact(row_bytes)) {
            let at = (row as usize * width as usize + x as usize) * 3;
            prop_assert_eq!(part, &full[at..at + row_bytes]);
        }
    }

    #[test]
    fn resize_to_the_same_size_changes_nothing((image, crop, _, _) in resizings()) {
        let same = resized(&image, crop, crop.width, crop.height);
        let stride = image.width() as usize * 3;
        let row_bytes = crop.width as usize * 3;
        for (row, part) in same.chunks_exact(row_bytes).enumerate() {
            let at = (crop.y as usize + row) * stride + crop.x as usize * 3;
            prop_assert_eq!(part, &image.pixels()[at..at + row_bytes]);
        }
    }

    #[test]
    fn colour_is_left_alone_by_neutral_factors((image, _, _, _) in resizings()) {
        let mut pixels = image.pixels().to_vec();
        adjust_brightness(&mut pixels, 1.0);
        adjust_contrast(&mut pixels, 1.0);
        adjust_saturation(&mut pixels, 1.0);
        prop_assert_eq!(image.pixels(), &pixels);
    }

    #[test]
    fn colour_kernels_agree_at_any_length((image, _, _, _) in resizings(), factor in 0f32..2.0, shift in -0.5f32..0.5) {
        let (mut fastest, mut portable) = (image.pixels().to_vec(), image.pixels().to_vec());
        adjust_saturation(&mut fastest, factor);
        adjust_hue(&mut fastest, shift);
        colour::saturate(&mut portable, factor);
        hue::shift_hue(&mut portable, hue::hue_steps(shift));
        prop_assert!(fastest == portable);
        prop_assert_eq!(gray::luma_sum(&fastest), gray::portable_luma_sum(&portable));
        gray(&mut fastest);
        gray::portable_gray(&mut portable);
        prop_assert!(fastest == portable);
    }
}
