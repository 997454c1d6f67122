//! Planes instead of pixels: near the exact pixels once they are resized and joined, and left where they cannot be.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use turbojpeg_sys as tj;

use super::super::{CropBox, Decoder, Rgb8};
use super::tests::{LIMIT, PLAIN, Settings, by_libjpeg, encode, part_of, settings, supported};
use crate::augment::{self, AugmentDraw, Scratch};

/// The crop at `size` x `size` pixels by the way that is not exact, if it was taken; and exactly.
fn both(bytes: &[u8], part: CropBox, size: u32) -> (Option<Vec<u8>>, Vec<u8>) {
    let (mut scratch, mut other) = (Scratch::default(), Rgb8::default());
    let draw = AugmentDraw {
        crop: part,
        jitter: None,
        gray: false,
    };
    let mut exact = vec![0; (size * size * 3) as usize];
    let whole = by_libjpeg(bytes).unwrap();
    augment::apply(&whole, &draw, size, &mut scratch, &mut exact);
    let mut decoder = Decoder::new(LIMIT);
    let planes = decoder.decode_planes(bytes, &mut other, size, |_, _| part);
    let fast = planes.unwrap().map(|planes| {
        let mut fast = vec![0; exact.len()];
        augment::apply_to_planes(&planes, &draw, size, &mut scratch, &mut fast);
        fast
    });
    if fast.is_none() {
        let mut left = vec![0; exact.len()];
        augment::apply(&other, &draw, size, &mut scratch, &mut left);
        assert_eq!(left, exact, "what is left to the exact way is exact");
    }
    (fast, exact)
}

fn mean_error(fast: &[u8], exact: &[u8]) -> f64 {
    let errors = fast
        .iter()
        .zip(exact)
        .map(|(a, b)| f64::from(a.abs_diff(*b)));
    errors.sum::<f64>() / exact.len() as f64
}

#[test]
fn smooth_pictures_are_near_the_exact_ones() {
    for (width, height) in [
        (100, 80),
        (61, 93),
        (300, 250),
        (700, 600),
        (64, 64),
        (50, 40),
    ] {
        for subsampling in [
            tj::TJSAMP_TJSAMP_444,
            tj::TJSAMP_TJSAMP_422,
            tj::TJSAMP_TJSAMP_420,
            tj::TJSAMP_TJSAMP_GRAY,
        ] {
            let settings = Settings {
                width,
                height,
                subsampling,
                noise: 4,
                quality: 95,
                ..PLAIN
            };
            let bytes = encode(&settings);
            let (w, h) = (width as u32, height as u32);
            let inner = CropBox {
                x: 7,
                y: 3,
                width: w - 9,
                height: h - 8,
            };
            for (part, size) in [(CropBox::whole(w, h), 40), (inner, 40), (inner, 64)] {
                let (fast, exact) = both(&bytes, part, size);
                assert_eq!(fast.is_some(), supported());
                let error = fast.map_or(0.0, |fast| mean_error(&fast, &exact));
                assert!(error < 4.0, "{settings:?}, {part:?} to {size}: {error}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_shape_gives_planes_or_exact_pixels(
        settings in settings(1..300),
        part in any::<(u32, u32, u32, u32)>(),
        size in 1u32..70,
    ) {
        let part = part_of(part)(settings.width as u32, settings.height as u32);
        let (fast, exact) = both(&encode(&settings), part, size);
        // Of nothing but noise there may be little left, but its colours are the same on average.
        if let Some(fast) = fast && size > 8 {
            let mean = |pixels: &[u8]| pixels.iter().map(|&value| f64::from(value)).sum::<f64>() / pixels.len() as f64;
            let (ours, theirs) = (mean(&fast), mean(&exact));
            prop_assert!((ours - theirs).abs() < 12.0, "{ours} for {theirs}");
        }
    }
}

#[test]
fn damage_is_left_to_the_exact_way() {
    let mut bytes = encode(&PLAIN);
    bytes.truncate(bytes.len() / 2);
    let (mut decoder, mut into) = (Decoder::new(LIMIT), Rgb8::default());
    assert!(
        decoder
            .decode_planes(&bytes, &mut into, 16, CropBox::whole)
            .is_err()
    );
}
