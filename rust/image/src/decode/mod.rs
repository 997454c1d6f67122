//! Decodes images to packed RGB, with the pixels of PIL's `Image.open(…).convert("RGB")`.
//!
//! `prolip-jpeg` decodes ordinary JPEG files, libjpeg-turbo other ones, libwebp WebP, and the crate `png` PNG, as the first bytes
//! tell. As in PIL, colour profiles and gamma are ignored, and so is the orientation unless the caller asks for it. What PIL
//! rejects, such as a truncated file, is an error.

mod jpeg;
mod png;
mod webp;

use prolip_jpeg::simd::{Level, level};
use prolip_jpeg::{JpegDecoder, JpegHeader};

use super::orientation::orientation;
use super::rgb::{CropBox, Rgb8, check_size};
use crate::error::DecodeError;

#[derive(Debug)]
pub struct Decoder {
    max_pixels: u64,
    // `None` if libjpeg-turbo decodes every JPEG.
    jpeg: Option<JpegDecoder>,
}

impl Decoder {
    /// Rejects images of more than `max_pixels` pixels.
    pub fn new(max_pixels: u64) -> Self {
        Self { max_pixels, jpeg: Some(JpegDecoder::default()) }
    }

    /// libjpeg-turbo for every JPEG: the baseline of benchmarks. The pixels are the same.
    pub fn of_libraries(max_pixels: u64) -> Self {
        Self { jpeg: None, ..Self::new(max_pixels) }
    }

    /// Reuses the buffer of `into`, whose content is unspecified after an error.
    pub fn decode(&mut self, bytes: &[u8], into: &mut Rgb8) -> Result<(), DecodeError> {
        self.decode_part(bytes, into, CropBox::whole).map(|_| ())
    }

    /// As [`Self::decode`], but only the part that `choose` returns for the width and height. Other pixels are unspecified.
    pub fn decode_part(
        &mut self,
        bytes: &[u8],
        into: &mut Rgb8,
        choose: impl FnOnce(u32, u32) -> CropBox,
    ) -> Result<CropBox, DecodeError> {
        if let Some(header) = self.plain_header(bytes)? {
            let part = choose(header.width, header.height);
            part.check(header.width, header.height);
            let (width, height, length) = (header.width, header.height, header.buffer_length());
            let pixels = into.reshape_loosely(width, height, length);
            let own = self.jpeg.as_mut();
            if own.and_then(|own| own.decode(&header, bytes, part, pixels)).is_none() {
                self.decode_whole(bytes, into)?;
            }
            return Ok(part);
        }
        self.decode_whole(bytes, into)?;
        let part = choose(into.width(), into.height());
        part.check(into.width(), into.height());
        Ok(part)
    }

    /// As [`Self::decode_part`], of the image turned as its EXIF orientation says.
    pub fn decode_turned(
        &mut self,
        bytes: &[u8],
        into: &mut Rgb8,
        choose: impl FnOnce(u32, u32) -> CropBox,
    ) -> Result<CropBox, DecodeError> {
        let orientation = orientation(bytes);
        if orientation == 1 {
            return self.decode_part(bytes, into, choose);
        }
        self.decode(bytes, into)?;
        into.turn(orientation);
        Ok(choose(into.width(), into.height()))
    }

    /// If `prolip-jpeg` can decode this file and is the faster.
    fn plain_header(&self, bytes: &[u8]) -> Result<Option<JpegHeader>, DecodeError> {
        // Without vector instructions libjpeg-turbo, which has its own, takes half the time.
        let own = self.jpeg.is_some() && level() != Level::Portable;
        let header = own.then(|| JpegHeader::read(bytes)).flatten();
        if let Some(header) = &header {
            check_size(header.width, header.height, self.max_pixels)?;
            if header.progressive {
                jpeg::check_scans(bytes, header.width, header.height)?;
            }
        }
        Ok(header)
    }

    fn decode_whole(&mut self, bytes: &[u8], into: &mut Rgb8) -> Result<(), DecodeError> {
        if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
            // A handle keeps its tables, and would use them for a file without any.
            jpeg::Decompressor::new()?.decode(bytes, self.max_pixels, into)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            png::decode(bytes, self.max_pixels, into)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            webp::decode(bytes, self.max_pixels, into)
        } else if bytes.starts_with(b"GIF8") {
            Err(DecodeError::Convertible("GIF"))
        } else if bytes.starts_with(b"BM") {
            Err(DecodeError::Convertible("BMP"))
        } else {
            Err(DecodeError::UnknownFormat { length: bytes.len() })
        }
    }
}

#[cfg(test)]
mod tests;
