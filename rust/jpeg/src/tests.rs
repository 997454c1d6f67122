//! Tests: the same pixels as libjpeg-turbo, for valid and damaged files that it writes with random settings.

use proptest::prelude::*;
use turbojpeg_sys as tj;

use super::simd::{at, runnable};
use super::{CropBox, JpegDecoder, JpegHeader};

mod one_block;

const LIMIT: u64 = 1 << 22;

#[derive(Debug, Clone)]
struct Settings {
    width: i32,
    height: i32,
    subsampling: i32,
    quality: i32,
    optimize: bool,
    progressive: bool,
    restart_blocks: i32,
    restart_rows: i32,
    seed: u64,
    /// Share of noise in the image, out of 255.
    noise: u8,
}

fn settings(sides: std::ops::Range<i32>) -> impl Strategy<Value = Settings> {
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
    let kind = (any::<bool>(), prop::bool::weighted(0.3), restarts);
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

fn encode(settings: &Settings) -> Vec<u8> {
    let pixels = pixels(settings);
    // SAFETY: the handle is used by this thread alone and destroyed at the end; the pixels are width * height * 3 bytes; the
    // library allocates the output, which is copied and freed.
    unsafe {
        let handle = tj::tj3Init(tj::TJINIT_TJINIT_COMPRESS as i32);
        for (parameter, value) in [
            (tj::TJPARAM_TJPARAM_SUBSAMP, settings.subsampling),
            (tj::TJPARAM_TJPARAM_QUALITY, settings.quality),
            (tj::TJPARAM_TJPARAM_OPTIMIZE, i32::from(settings.optimize)),
            (tj::TJPARAM_TJPARAM_PROGRESSIVE, i32::from(settings.progressive)),
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

/// Decodes with libjpeg-turbo: the accurate inverse DCT and smooth upsampling. Warnings about the data are errors.
fn by_libjpeg(bytes: &[u8]) -> Result<Image, String> {
    // SAFETY: the handle is used by this thread alone and destroyed at the end.
    unsafe {
        let handle = tj::tj3Init(tj::TJINIT_TJINIT_DECOMPRESS as i32);
        let result = decompress(handle, bytes);
        tj::tj3Destroy(handle);
        result
    }
}

/// Decompresses with a handle.
///
/// # Safety
/// The handle is one of this thread alone.
unsafe fn decompress(handle: tj::tjhandle, bytes: &[u8]) -> Result<Image, String> {
    let check = |status: i32| {
        // SAFETY: the message is copied before the next call.
        let message = unsafe { std::ffi::CStr::from_ptr(tj::tj3GetErrorStr(handle)) };
        let message = message.to_string_lossy().into_owned();
        // About a version of the format, for instance.
        let harmless = message.starts_with("Warning: ");
        (status == 0 || harmless).then_some(()).ok_or(message)
    };
    let length = bytes.len() as u64;
    // SAFETY: the bytes are as many as said.
    check(unsafe { tj::tj3DecompressHeader(handle, bytes.as_ptr(), length) })?;
    // SAFETY: any parameter can be read.
    let size = |parameter: tj::TJPARAM| unsafe { tj::tj3Get(handle, parameter as i32) } as u32;
    let width = size(tj::TJPARAM_TJPARAM_JPEGWIDTH);
    let height = size(tj::TJPARAM_TJPARAM_JPEGHEIGHT);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let (out, format) = (pixels.as_mut_ptr(), tj::TJPF_TJPF_RGB);
    // SAFETY: the buffer has the size of the header that is read from the same bytes.
    check(unsafe { tj::tj3Decompress8(handle, bytes.as_ptr(), length, out, 0, format) })?;
    Ok(Image { width, height, pixels })
}

#[derive(Debug)]
struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Image {
    fn whole(&self) -> CropBox {
        CropBox::whole(self.width, self.height)
    }

    fn part(&self, part: CropBox) -> Vec<u8> {
        part_of(&self.pixels, self.width, part)
    }
}

fn part_of(pixels: &[u8], width: u32, part: CropBox) -> Vec<u8> {
    let rows = part.y as usize..(part.y + part.height) as usize;
    let row = |y: usize| &pixels[(y * width as usize + part.x as usize) * 3..];
    rows.flat_map(|y| &row(y)[..part.width as usize * 3]).copied().collect()
}

/// Decodes a part with our decoder, at each level that the processor can run. `None` if all of them leave the file to other
/// libraries.
fn here(bytes: &[u8], part: impl FnOnce(u32, u32) -> CropBox) -> Option<(Vec<u8>, CropBox)> {
    let header = JpegHeader::read(bytes)?;
    let (width, height) = (header.width, header.height);
    if u64::from(width) * u64::from(height) > LIMIT {
        return None;
    }
    let part = part(width, height);
    let mut results = runnable().map(|level| {
        let (mut pixels, mut decoder) = (vec![0; header.buffer_length()], JpegDecoder::default());
        let decoded = at(level, || decoder.decode(&header, bytes, part, &mut pixels));
        decoded.map(|()| part_of(&pixels, width, part))
    });
    let first = results.next().unwrap();
    for (result, level) in results.zip(runnable().skip(1)) {
        assert!(result == first, "{level:?} differs");
    }
    first.map(|pixels| (pixels, part))
}

const PLAIN: Settings = Settings {
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

/// A part of an image, from four numbers.
fn some_part((x, y, width, height): (u32, u32, u32, u32)) -> impl Fn(u32, u32) -> CropBox {
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
    fn valid_files_have_libjpegs_pixels(settings in settings(1..100), part in any::<(u32, u32, u32, u32)>()) {
        let bytes = encode(&settings);
        let theirs = by_libjpeg(&bytes).unwrap();
        let plain = settings.subsampling != tj::TJSAMP_TJSAMP_440
            && settings.subsampling != tj::TJSAMP_TJSAMP_411
            && settings.width > 4;
        for part in [some_part(part)(theirs.width, theirs.height), theirs.whole()] {
            let ours = here(&bytes, |_, _| part);
            prop_assert!(ours.is_some() || !plain, "left to libjpeg-turbo");
            if let Some((ours, part)) = ours {
                prop_assert!(ours == theirs.part(part));
            }
        }
    }

    #[test]
    fn damaged_files_are_left_to_libjpeg_or_have_its_pixels(
        settings in settings(1..50),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = encode(&settings);
        for (place, value) in damage {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len()));
        }
        // Skip sizes that the damage has created.
        if let Some((ours, part)) = here(&bytes, CropBox::whole) {
            let theirs = by_libjpeg(&bytes);
            prop_assert!(theirs.is_ok(), "{theirs:?}");
            prop_assert!(ours == theirs.unwrap().part(part));
        }
    }

    #[test]
    fn unusual_quantization_tables_give_libjpegs_pixels(settings in settings(1..40), steps in prop::collection::vec(any::<u8>(), 64)) {
        let mut bytes = encode(&settings);
        let tables: Vec<usize> = bytes.windows(2).enumerate()
            .filter(|(_, marker)| *marker == [0xFF, 0xDB]).map(|(at, _)| at).collect();
        for at in tables {
            bytes[at + 5..at + 69].copy_from_slice(&steps);
        }
        if let Some((ours, part)) = here(&bytes, CropBox::whole) {
            prop_assert!(ours == by_libjpeg(&bytes).unwrap().part(part));
        }
    }
}

#[test]
fn every_small_size_has_libjpegs_pixels() {
    for subsampling in [
        tj::TJSAMP_TJSAMP_444,
        tj::TJSAMP_TJSAMP_422,
        tj::TJSAMP_TJSAMP_420,
        tj::TJSAMP_TJSAMP_GRAY,
    ] {
        for (width, height) in (1..36).flat_map(|width| (1..36).map(move |height| (width, height)))
        {
            let bytes = encode(&Settings { width, height, subsampling, ..PLAIN });
            if let Some((ours, part)) = here(&bytes, CropBox::whole) {
                let theirs = by_libjpeg(&bytes).unwrap();
                assert!(ours == theirs.part(part), "{width} x {height}");
            }
        }
    }
}

#[test]
fn files_with_an_unusual_end_are_left_to_libjpeg() {
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
        assert!(here(&[&bytes[..end], tail].concat(), CropBox::whole).is_none(), "{tail:?}");
    }
    assert!(here(&bytes[..end - 40], CropBox::whole).is_none());
}
