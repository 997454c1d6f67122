//! Tests: the same pixels as libjpeg-turbo, for valid and damaged files that it writes with random settings.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use turbojpeg_sys as tj;

use super::super::{CropBox, Decoder, Rgb8};
use super::{Baseline, header};

pub(super) const LIMIT: u64 = 1 << 20;

/// Settings of an encoded image.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) subsampling: i32,
    pub(super) quality: i32,
    pub(super) optimize: bool,
    pub(super) progressive: bool,
    pub(super) restart_blocks: i32,
    pub(super) restart_rows: i32,
    pub(super) seed: u64,
    /// Share of noise in the image, out of 255.
    pub(super) noise: u8,
}

pub(super) fn settings(sides: std::ops::Range<i32>) -> impl Strategy<Value = Settings> {
    let subsampling = prop::sample::select(vec![
        tj::TJSAMP_TJSAMP_444,
        tj::TJSAMP_TJSAMP_422,
        tj::TJSAMP_TJSAMP_420,
        tj::TJSAMP_TJSAMP_GRAY,
        tj::TJSAMP_TJSAMP_440,
        tj::TJSAMP_TJSAMP_411,
    ]);
    let restarts = prop_oneof![Just((0, 0)), (1..9, Just(0)), (Just(0), 1..4)];
    let shape = (sides.clone(), sides, subsampling, 1..=100);
    let kind = (any::<bool>(), prop::bool::weighted(0.05), restarts);
    (shape, kind, any::<u64>(), any::<u8>()).prop_map(|(shape, kind, seed, noise)| Settings {
        width: shape.0,
        height: shape.1,
        subsampling: shape.2,
        quality: shape.3,
        optimize: kind.0,
        progressive: kind.1,
        restart_blocks: kind.2.0,
        restart_rows: kind.2.1,
        seed,
        noise,
    })
}

fn pixels(settings: &Settings) -> Vec<u8> {
    let (width, height) = (settings.width as usize, settings.height as usize);
    let mut state = settings.seed | 1;
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let slope = (x * (3 + channel) + y * (5 - channel)) as u64 + (settings.seed >> 40);
                let noise = (state >> 32) % 256 * u64::from(settings.noise) / 255;
                // Up and down again: no edges except noise.
                let folded = slope % 510;
                pixels.push((folded.min(510 - folded) + noise).min(255) as u8);
            }
        }
    }
    pixels
}

/// Encodes an image with libjpeg-turbo.
pub(super) fn encode(settings: &Settings) -> Vec<u8> {
    let pixels = pixels(settings);
    // SAFETY: the handle is used by this thread alone and destroyed at the end; the pixels are width * height * 3 bytes; the
    // library allocates the output, which is copied and freed.
    unsafe {
        let handle = tj::tj3Init(tj::TJINIT_TJINIT_COMPRESS as i32);
        for (parameter, value) in [
            (tj::TJPARAM_TJPARAM_SUBSAMP, settings.subsampling),
            (tj::TJPARAM_TJPARAM_QUALITY, settings.quality),
            (tj::TJPARAM_TJPARAM_OPTIMIZE, i32::from(settings.optimize)),
            (
                tj::TJPARAM_TJPARAM_PROGRESSIVE,
                i32::from(settings.progressive),
            ),
            (tj::TJPARAM_TJPARAM_RESTARTBLOCKS, settings.restart_blocks),
            (tj::TJPARAM_TJPARAM_RESTARTROWS, settings.restart_rows),
        ] {
            assert_eq!(tj::tj3Set(handle, parameter as i32, value), 0);
        }
        let (mut out, mut length) = (std::ptr::null_mut(), 0);
        let status = tj::tj3Compress8(
            handle,
            pixels.as_ptr(),
            settings.width,
            0,
            settings.height,
            tj::TJPF_TJPF_RGB,
            &mut out,
            &mut length,
        );
        assert_eq!(status, 0);
        let bytes = std::slice::from_raw_parts(out, length as usize).to_vec();
        tj::tj3Free(out.cast());
        tj::tj3Destroy(handle);
        bytes
    }
}

pub(super) fn by_libjpeg(bytes: &[u8]) -> Result<Rgb8, String> {
    let mut image = Rgb8::default();
    let result = Decoder::of_libraries(LIMIT).decode(bytes, &mut image);
    result.map(|()| image).map_err(|error| error.to_string())
}

/// Decodes with our decoder. `None` if it leaves the file to libjpeg-turbo.
fn here(bytes: &[u8], part: impl FnOnce(u32, u32) -> CropBox) -> Option<(Rgb8, CropBox)> {
    // Other files never reach this decoder.
    let header = header(bytes).filter(|_| bytes.starts_with(&[0xFF, 0xD8, 0xFF]))?;
    if u64::from(header.width) * u64::from(header.height) > LIMIT {
        return None;
    }
    let part = part(header.width, header.height);
    let mut image = Rgb8::default();
    Baseline::default().decode(&header, bytes, part, &mut image)?;
    Some((image, part))
}

fn same_part(ours: &Rgb8, theirs: &Rgb8, part: CropBox) -> bool {
    let stride = theirs.width() as usize * 3;
    (ours.width(), ours.height()) == (theirs.width(), theirs.height())
        && (part.y..part.y + part.height).all(|y| {
            let at = y as usize * stride + part.x as usize * 3;
            let row = at..at + part.width as usize * 3;
            ours.pixels()[row.clone()] == theirs.pixels()[row]
        })
}

pub(super) fn supported() -> bool {
    header(&encode(&PLAIN)).is_some()
}

pub(super) const PLAIN: Settings = Settings {
    width: 40,
    height: 30,
    subsampling: tj::TJSAMP_TJSAMP_420,
    quality: 90,
    optimize: false,
    progressive: false,
    restart_blocks: 0,
    restart_rows: 0,
    seed: 1,
    noise: 60,
};

/// A part of an image, from four fractions.
pub(super) fn part_of((x, y, width, height): (u32, u32, u32, u32)) -> impl Fn(u32, u32) -> CropBox {
    move |whole_width, whole_height| {
        let (x, y) = (x % whole_width, y % whole_height);
        CropBox {
            x,
            y,
            width: width % (whole_width - x) + 1,
            height: height % (whole_height - y) + 1,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn sound_files_have_the_same_pixels(settings in settings(1..100), part in any::<(u32, u32, u32, u32)>()) {
        let bytes = encode(&settings);
        let theirs = by_libjpeg(&bytes).unwrap();
        let plain = settings.subsampling != tj::TJSAMP_TJSAMP_440
            && settings.subsampling != tj::TJSAMP_TJSAMP_411
            && !settings.progressive && settings.width > 4;
        for part in [part_of(part)(theirs.width(), theirs.height()), CropBox::whole(theirs.width(), theirs.height())] {
            let ours = here(&bytes, |_, _| part);
            if plain && supported() {
                prop_assert!(ours.is_some(), "left to libjpeg-turbo");
            }
            if let Some((ours, part)) = ours {
                prop_assert!(same_part(&ours, &theirs, part));
            }
        }
    }

    #[test]
    fn damaged_files_are_left_or_have_the_same_pixels(
        settings in settings(1..50),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = encode(&settings);
        for (place, value) in damage {
            // After the signature, which every file here has.
            let at = 3 + place.index(bytes.len() - 3);
            bytes[at] = value;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len()));
        }
        // Skip sizes that the damage has created.
        if let Some((ours, part)) = here(&bytes, CropBox::whole) {
            let theirs = by_libjpeg(&bytes);
            prop_assert!(theirs.is_ok(), "{theirs:?}");
            prop_assert!(same_part(&ours, &theirs.unwrap(), part));
        }
    }

    #[test]
    fn strange_quantization_has_the_same_pixels(settings in settings(1..40), steps in prop::collection::vec(any::<u8>(), 64)) {
        let mut bytes = encode(&settings);
        let tables: Vec<usize> = bytes.windows(2).enumerate()
            .filter(|(_, marker)| *marker == [0xFF, 0xDB]).map(|(at, _)| at).collect();
        for at in tables {
            bytes[at + 5..at + 69].copy_from_slice(&steps);
        }
        if let Some((ours, part)) = here(&bytes, CropBox::whole) {
            prop_assert!(same_part(&ours, &by_libjpeg(&bytes).unwrap(), part));
        }
    }
}

#[test]
fn every_small_size_has_the_same_pixels() {
    for subsampling in [
        tj::TJSAMP_TJSAMP_444,
        tj::TJSAMP_TJSAMP_422,
        tj::TJSAMP_TJSAMP_420,
        tj::TJSAMP_TJSAMP_GRAY,
    ] {
        for (width, height) in (1..36).flat_map(|width| (1..36).map(move |height| (width, height)))
        {
            let bytes = encode(&Settings {
                width,
                height,
                subsampling,
                ..PLAIN
            });
            if let Some((ours, part)) = here(&bytes, CropBox::whole) {
                assert!(
                    same_part(&ours, &by_libjpeg(&bytes).unwrap(), part),
                    "{width} x {height}"
                );
            }
        }
    }
}

#[test]
fn what_comes_behind_the_samples_is_left_to_libjpeg() {
    if !supported() {
        return;
    }
    let bytes = encode(&PLAIN);
    let end = bytes.len() - 2;
    assert!(here(&bytes, CropBox::whole).is_some());
    assert!(here(&[&bytes, &[1, 2, 3][..]].concat(), CropBox::whole).is_some());
    for tail in [
        &[][..],
        &[0xFF],
        &[0xFF, 0xD8],
        &[0xAB, 0xFF, 0xD9],
        &[0xFF, 0xFF, 0xD9],
        &[0xFF, 0xD0, 0xFF, 0xD9],
    ] {
        assert!(
            here(&[&bytes[..end], tail].concat(), CropBox::whole).is_none(),
            "{tail:?}"
        );
    }
    assert!(here(&bytes[..end - 40], CropBox::whole).is_none());
}
