//! Any image, any draw: the kernels of resizing and of colours stay within their buffers, which are fresh and so no longer
//! than they must be, and give the same pixels with all vector instructions of the processor.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prolip_image::{Crop, Filter, Fit, Mode, Rgb8, Scratch, apply};
use prolip_jpeg::simd::{at, runnable};
use prolip_loader::config::AugmentConfig;
use prolip_loader::image::draw;
use prolip_loader::rng::SampleRng;

/// More columns than a vector has, and some.
const MAX_SIDE: u32 = 160;

fuzz_target!(|input: (u8, u8, u8, u64, &[u8])| {
    let (width, height, size, seed, samples) = input;
    let filter = Filter::ALL[seed as usize % Filter::ALL.len()];
    let resize = [Mode::Shortest, Mode::Squash, Mode::Longest][seed as usize / 6 % 3];
    let resize_size = Some([1 + seed as u32 % MAX_SIDE, 1 + (seed >> 32) as u32 % MAX_SIDE]);
    let fit = Fit { resize, filter, crop: Crop::Round, resize_size, fill: [9; 3] };
    let side = |byte: u8| 1 + u32::from(byte) % MAX_SIDE;
    let (width, height, size) = (side(width), side(height), side(size));
    let pixels = if samples.is_empty() { b"\0" } else { samples };
    let count = width as usize * height as usize * 3;
    let pixels: Vec<u8> = pixels.iter().copied().cycle().take(count).collect();
    let image = Rgb8::from_pixels(width, height, pixels).expect("as many samples as it has");
    let config = AugmentConfig {
        crop_scale: (0.001, 1.0),
        crop_ratio: (0.05, 20.0),
        jitter: [1.0, 1.0, 1.0, 0.5],
        jitter_prob: 0.8,
        gray_prob: 0.2,
    };
    let drawn = draw(&config, width, height, &mut SampleRng::new(seed, 0, 0, 0));
    let fresh = || vec![0; size as usize * size as usize * 3];
    let mut scratch = Scratch::default();
    let mut first: Option<[Vec<u8>; 2]> = None;
    for level in runnable() {
        let pixels = at(level, || {
            let (mut out, mut again, mut evaluated) = (fresh(), fresh(), fresh());
            apply(&image, &drawn, filter, [size; 2], &mut scratch, &mut out);
            // What an image leaves in the buffers is not seen by the next.
            fit.apply(&image, [size; 2], &mut scratch, &mut evaluated);
            apply(&image, &drawn, filter, [size; 2], &mut scratch, &mut again);
            assert!(out == again, "{level:?}");
            [out, evaluated]
        });
        assert!(*first.get_or_insert_with(|| pixels.clone()) == pixels, "{level:?}");
    }
});
