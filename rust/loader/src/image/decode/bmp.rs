//! Decodes BMP with the `image` crate, with Pillow's pixels.
//!
//! The two differ in 16-bit pixels, whose rounding is changed here, and in pixels that run-length encoding skips: they are
//! black here, and colour 0 in Pillow.

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::{ColorType, ImageDecoder};

use super::{DecodeError, Rgb8, check_size};

const FILE_HEADER: usize = 14;
/// Size of the Windows 3 header. The OS/2 2.x header has the same fields and 24 more bytes.
const WINDOWS_HEADER: usize = 40;
const OS2_HEADER: usize = 64;
const MASKS: u32 = 3;

pub(super) fn decode(bytes: &[u8], max_pixels: u64, into: &mut Rgb8) -> Result<(), DecodeError> {
    let bytes = with_windows_header(bytes);
    let decoder = BmpDecoder::new(Cursor::new(&*bytes))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, max_pixels)?;
    if decoder.color_type() == ColorType::Rgba8 {
        let mut samples = vec![0; width as usize * height as usize * 4];
        decoder.read_image(&mut samples)?;
        let pixels = into.reshape(width, height).chunks_exact_mut(3);
        for (pixel, sample) in pixels.zip(samples.chunks_exact(4)) {
            pixel.copy_from_slice(&sample[..3]);
        }
    } else {
        decoder.read_image(into.reshape(width, height))?;
    }
    if let Some(green_bits) = packed_green_bits(&bytes) {
        round_down(into.reshape(width, height), green_bits);
    }
    Ok(())
}

fn with_windows_header(bytes: &[u8]) -> Cow<'_, [u8]> {
    let (size, begin) = (number(bytes, FILE_HEADER), number(bytes, 10));
    let compression = number(bytes, FILE_HEADER + 16);
    let (Some(size), Some(begin), Some(compression)) = (size, begin, compression) else {
        return Cow::Borrowed(bytes);
    };
    // In OS/2, codes from 3 on mean other compressions.
    if size as usize != OS2_HEADER || compression >= MASKS {
        return Cow::Borrowed(bytes);
    }
    let mut shorter = bytes.to_vec();
    let removed = OS2_HEADER - WINDOWS_HEADER;
    let end = shorter.len().min(FILE_HEADER + OS2_HEADER);
    shorter.drain(end.min(FILE_HEADER + WINDOWS_HEADER)..end);
    let begin = begin.saturating_sub(removed as u32);
    shorter[10..FILE_HEADER].copy_from_slice(&begin.to_le_bytes());
    shorter[FILE_HEADER..FILE_HEADER + 4].copy_from_slice(&(WINDOWS_HEADER as u32).to_le_bytes());
    Cow::Owned(shorter)
}

/// Bits of green in a 16-bit pixel: 5 or 6. `None` for other pixels, and for masks that Pillow does not support.
fn packed_green_bits(bytes: &[u8]) -> Option<u32> {
    let size = number(bytes, FILE_HEADER)? as usize;
    let bits = number(bytes, FILE_HEADER + 12)? >> 16;
    if size < WINDOWS_HEADER || bits != 16 {
        return None;
    }
    if number(bytes, FILE_HEADER + 16)? != MASKS {
        return Some(5);
    }
    let mask = |index: usize| number(bytes, FILE_HEADER + WINDOWS_HEADER + index * 4);
    match [mask(0)?, mask(1)?, mask(2)?] {
        [0x7C00, 0x03E0, 0x1F] => Some(5),
        [0xF800, 0x07E0, 0x1F] => Some(6),
        _ => None,
    }
}

/// Rounds levels of 5 or 6 bits down, as Pillow does. The crate rounds to nearest.
fn round_down(pixels: &mut [u8], green_bits: u32) {
    let rounded = |level: u8, bits: u32| {
        let packed = u32::from(level) >> (8 - bits);
        (packed * 255 / ((1 << bits) - 1)) as u8
    };
    for pixel in pixels.chunks_exact_mut(3) {
        pixel[0] = rounded(pixel[0], 5);
        pixel[1] = rounded(pixel[1], green_bits);
        pixel[2] = rounded(pixel[2], 5);
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*four))
}
