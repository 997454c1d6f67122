//! The pixels of training batches equal each sample's drawn operations, applied one by one to the whole decoded image.

use std::collections::HashSet;

use crate::common::{AUGMENT, archive, config, member, open, png, read_all};
use prolip_image::{
    Decoder, Filter, Rgb8, Scratch, adjust_brightness, adjust_contrast, adjust_hue,
    adjust_saturation, gray, resize_box,
};
use prolip_loader::config::{AugmentConfig, LastBatch, LoaderConfig};
use prolip_loader::image::{check_level, draw, level_names};
use prolip_loader::order::Cursor;
use prolip_loader::rng::{SampleRng, stream};

const SIZE: u32 = 8;
const ENCODED: [(&str, &[u8]); 6] = [
    ("jpg", include_bytes!("../../../image/tests/data/420.jpg")),
    ("jpeg", include_bytes!("../../../image/tests/data/progressive.jpg")),
    ("JPG", include_bytes!("../../../image/tests/data/cmyk.jpg")),
    ("webp", include_bytes!("../../../image/tests/data/lossy.webp")),
    ("png", include_bytes!("../../../image/tests/data/alpha.png")),
    ("jpg", include_bytes!("../../../image/tests/data/motion.jpg")),
];

/// The pixels of a sample in an epoch. `place` is its shard and its index in the shard.
fn expected(encoded: &[u8], config: &LoaderConfig, epoch: u64, place: (u64, u64)) -> Vec<u8> {
    let mut image = Rgb8::default();
    Decoder::of_libraries(1 << 20).decode(encoded, &mut image).unwrap();
    let key = place.0 << 32 | place.1;
    let mut rng = SampleRng::new(config.seed, epoch, key, stream::AUGMENT);
    let augment = config.augment.as_ref().unwrap();
    let drawn = draw(augment, image.width(), image.height(), &mut rng);
    let mut out = vec![0; (SIZE * SIZE * 3) as usize];
    let scratch = &mut Scratch::default();
    resize_box(&image, drawn.crop, Filter::Bicubic, [SIZE; 2], scratch, &mut out);
    if let Some(jitter) = drawn.jitter {
        for step in jitter.order {
            match step {
                0 => adjust_brightness(&mut out, jitter.brightness.unwrap()),
                1 => adjust_contrast(&mut out, jitter.contrast.unwrap()),
                2 => adjust_saturation(&mut out, jitter.saturation.unwrap()),
                _ => adjust_hue(&mut out, jitter.hue.unwrap()),
            }
        }
    }
    if drawn.gray {
        gray(&mut out);
    }
    out
}

#[test]
fn training_pixels_follow_the_drawn_augmentations() {
    // The nightly job sets a level that is not the fastest.
    let asked = std::env::var("PROLIP_SIMD").ok().filter(|name| !name.is_empty());
    let fastest = level_names().pop().unwrap();
    assert_eq!(check_level().unwrap(), asked.as_deref().unwrap_or(fastest));
    let folder = tempfile::tempdir().unwrap();
    let noise = png(23, 40, [200, 30, 90]);
    let mut files = ENCODED.to_vec();
    files.push(("png", &noise));
    for shard in 0..3 {
        let members: Vec<Vec<u8>> = (0..10)
            .map(|index| {
                let (extension, bytes) = files[(shard + index) % files.len()];
                member(&format!("{shard}-{index}.{extension}"), bytes)
            })
            .collect();
        std::fs::write(folder.path().join(format!("{shard}.tar")), archive(&members)).unwrap();
    }
    let config = LoaderConfig {
        augment: Some(AugmentConfig {
            crop_scale: (0.1, 1.0),
            jitter: [0.4, 0.4, 0.4, 0.3],
            jitter_prob: 0.7,
            gray_prob: 0.3,
            ..AUGMENT
        }),
        captions: Vec::new(),
        mask: None,
        image_size: [SIZE; 2],
        last_batch: LastBatch::Keep,
        num_epochs: Some(3),
        ..config(folder.path())
    };
    let dataset = open(config.clone(), 0, 1).unwrap();
    let mut seen = HashSet::new();
    let mut epochs = [0; 3];
    let mut epoch = 0;
    for batch in read_all(&dataset, Cursor::default()).unwrap() {
        for (key, found) in batch.keys.iter().zip(batch.images.chunks((SIZE * SIZE * 3) as usize)) {
            let (shard, index) = key.split_once('-').unwrap();
            let place: (u64, u64) = (shard.parse().unwrap(), index.parse().unwrap());
            let (_, encoded) = files[(place.0 + place.1) as usize % files.len()];
            assert!(found == expected(encoded, &config, epoch, place), "{key} in epoch {epoch}");
            seen.insert(found.to_vec());
            epochs[epoch as usize] += 1;
            if epochs[epoch as usize] == 30 {
                epoch += 1;
            }
        }
    }
    assert_eq!(epochs, [30; 3]);
    // No pixels repeat, although each file occurs several times in the shards.
    assert!(seen.len() > 80, "{}", seen.len());
}
