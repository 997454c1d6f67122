//! The kernels one by one, in microseconds an image. Images are the photographs that `PROLIP_SHARED` (or
//! `../shared` beside the repository) holds; without them the decoders are left out and the rest runs on noise.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use prolip_image::{
    CropBox, Decoder, Filter, Fit, Rgb8, Scratch, adjust_brightness, adjust_contrast, adjust_hue,
    adjust_saturation, apply, gray, resize_box,
};
use prolip_loader::config::AugmentConfig;
use prolip_loader::image::draw;
use prolip_loader::rng::{SampleRng, stream};

const SIZE: u32 = 224;
const AUGMENT: AugmentConfig = AugmentConfig {
    crop_scale: (0.8, 1.0),
    crop_ratio: (0.75, 4.0 / 3.0),
    jitter: [0.32, 0.32, 0.32, 0.08],
    jitter_prob: 0.8,
    gray_prob: 0.2,
};
const MAX_PHOTOS: usize = 64;

fn photos() -> Vec<Vec<u8>> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("PROLIP_SHARED").map_or_else(beside, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(shared.join("photos")) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.truncate(MAX_PHOTOS);
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn images(photos: &[Vec<u8>]) -> Vec<Rgb8> {
    if photos.is_empty() {
        let mut rng = SampleRng::new(0, 0, 0, 0);
        let noise = (0..468 * 401 * 3).map(|_| rng.below(256) as u8).collect();
        return vec![Rgb8::from_pixels(468, 401, noise).unwrap()];
    }
    let mut decoder = Decoder::new(1 << 28);
    let decode = |bytes: &Vec<u8>| {
        let mut image = Rgb8::default();
        decoder.decode(bytes, &mut image).unwrap();
        image
    };
    photos.iter().map(decode).collect()
}

/// Runs `kernel` over the items in turn, one a measurement.
fn in_turn<T>(
    criterion: &mut Criterion,
    name: &str,
    items: &[T],
    mut kernel: impl FnMut(&T, usize),
) {
    let mut next = 0;
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            next += 1;
            kernel(&items[next % items.len()], next);
        });
    });
}

/// Photographs to pixels: all of them, and crops of `SIZE` pixels a side.
fn decoders(criterion: &mut Criterion, photos: &[Vec<u8>]) {
    let mut image = Rgb8::default();
    for (name, mut decoder) in [
        ("decode", Decoder::new(1 << 28)),
        ("decode by libjpeg-turbo", Decoder::of_libraries(1 << 28)),
    ] {
        in_turn(criterion, name, photos, |bytes, _| decoder.decode(bytes, &mut image).unwrap());
    }
    let config = AugmentConfig { jitter_prob: 0.0, gray_prob: 0.0, ..AUGMENT };
    let draw = |width, height, sample: usize| {
        let mut rng = SampleRng::new(0, 0, sample as u64, stream::AUGMENT);
        draw(&config, width, height, &mut rng)
    };
    let (mut decoder, mut scratch) = (Decoder::new(1 << 28), Scratch::default());
    let mut out = vec![0; (SIZE * SIZE * 3) as usize];
    in_turn(criterion, "decode of a crop", photos, |bytes, sample| {
        let choose = |width, height| draw(width, height, sample).crop;
        decoder.decode_part(bytes, &mut image, choose).unwrap();
    });
    in_turn(criterion, "crop", photos, |bytes, sample| {
        let mut drawn = None;
        let choose = |width, height| drawn.insert(draw(width, height, sample)).crop;
        decoder.decode_part(bytes, &mut image, choose).unwrap();
        apply(&image, &drawn.unwrap(), Filter::Bicubic, [SIZE; 2], &mut scratch, &mut out);
    });
}

fn kernels(criterion: &mut Criterion) {
    let photos = photos();
    let images = images(&photos);
    let mut scratch = Scratch::default();
    let mut out = vec![0; (SIZE * SIZE * 3) as usize];
    if !photos.is_empty() {
        decoders(criterion, &photos);
    }
    in_turn(criterion, "resize", &images, |image, _| {
        let whole = CropBox { x: 0, y: 0, width: image.width(), height: image.height() };
        resize_box(image, whole, Filter::Bicubic, [SIZE; 2], &mut scratch, &mut out);
    });
    in_turn(criterion, "evaluate", &images, |image, _| {
        Fit::default().apply(image, [SIZE; 2], &mut scratch, &mut out)
    });
    let config = AUGMENT;
    in_turn(criterion, "augment", &images, |image, sample| {
        let mut rng = SampleRng::new(0, 0, sample as u64, stream::AUGMENT);
        let draw = draw(&config, image.width(), image.height(), &mut rng);
        apply(image, &draw, Filter::Bicubic, [SIZE; 2], &mut scratch, &mut out);
    });
    type Adjust = fn(&mut [u8]);
    let colours: [(&str, Adjust); 5] = [
        ("brightness", |pixels| adjust_brightness(pixels, 1.2)),
        ("contrast", |pixels| adjust_contrast(pixels, 0.8)),
        ("saturation", |pixels| adjust_saturation(pixels, 1.2)),
        ("hue", |pixels| adjust_hue(pixels, 0.05)),
        ("gray", gray),
    ];
    Fit::default().apply(&images[0], [SIZE; 2], &mut scratch, &mut out);
    for (name, adjust) in colours {
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || out.clone(),
                |pixels| adjust(pixels),
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(30); targets = kernels }
criterion_main!(benches);
