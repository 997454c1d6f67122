//! Encoded pictures to packed RGB, with the pixels that PIL's `Image.open(…).convert("RGB")` gives.
//!
//! The plainest JPEG files are decoded here, others by libjpeg-turbo, WebP by libwebp, PNG, GIF and BMP by the crates `png`,
//! `gif` and `image`. The format is told from the first bytes, never from a file name. Orientation tags, colour profiles and gamma are
//! left alone, as PIL leaves them. What PIL refuses (a truncated file, say) is an error here.

mod baseline;
mod bmp;
mod gif;
mod jpeg;
mod png;
mod webp;

use super::rgb::{CropBox, Rgb8, check_size};
use crate::error::DecodeError;

/// Decodes pictures one after another; it owns the scratch memory, so each thread has its own.
#[derive(Debug)]
pub struct Decoder {
    max_pixels: u64,
    // None where every JPEG is left to libjpeg-turbo.
    baseline: Option<baseline::Baseline>,
    scratch: Vec<u8>,
}

impl Decoder {
    /// A decoder that refuses pictures whose header announces more than `max_pixels` pixels.
    #[must_use]
    pub fn new(max_pixels: u64) -> Self {
        Self {
            max_pixels,
            baseline: Some(baseline::Baseline::default()),
            scratch: Vec::new(),
        }
    }

    /// A decoder that gives the same pixels, but leaves every JPEG to libjpeg-turbo: the floor of benchmarks.
    #[must_use]
    pub fn of_libraries(max_pixels: u64) -> Self {
        Self {
            baseline: None,
            ..Self::new(max_pixels)
        }
    }

    /// Decodes `bytes` into `into`, reusing its buffer. After an error the content of `into` is unspecified.
    ///
    /// # Errors
    /// [`DecodeError`] where PIL would raise, and for pictures past the limit on pixels, which is checked on
    /// the header before any memory is taken.
    pub fn decode(&mut self, bytes: &[u8], into: &mut Rgb8) -> Result<(), DecodeError> {
        self.decode_part(bytes, into, CropBox::whole).map(|_| ())
    }

    /// As [`Self::decode`], for the part alone that `choose` names when it is told width and height. What lies outside it
    /// has unspecified pixels.
    ///
    /// # Errors
    /// As [`Self::decode`], also for damage outside the part.
    ///
    /// # Panics
    /// If the part does not lie in the picture.
    pub fn decode_part(
        &mut self,
        bytes: &[u8],
        into: &mut Rgb8,
        choose: impl FnOnce(u32, u32) -> CropBox,
    ) -> Result<CropBox, DecodeError> {
        if let Some(header) = self.plain_header(bytes)? {
            let part = choose(header.width, header.height);
            part.check(header.width, header.height);
            let baseline = self.baseline.as_mut();
            if baseline
                .and_then(|own| own.decode(&header, bytes, part, into))
                .is_none()
            {
                self.decode_whole(bytes, into)?;
            }
            return Ok(part);
        }
        self.decode_whole(bytes, into)?;
        let part = choose(into.width(), into.height());
        part.check(into.width(), into.height());
        Ok(part)
    }

    /// The header of a JPEG that may be decoded here.
    fn plain_header(&self, bytes: &[u8]) -> Result<Option<baseline::Header>, DecodeError> {
        if self.baseline.is_none() || !bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
            return Ok(None);
        }
        let header = baseline::header(bytes);
        if let Some(header) = &header {
            check_size(header.width, header.height, self.max_pixels)?;
        }
        Ok(header)
    }

    fn decode_whole(&mut self, bytes: &[u8], into: &mut Rgb8) -> Result<(), DecodeError> {
        if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
            // A handle of its own for each: it keeps the tables of the picture before, which one without tables would get.
            jpeg::Decompressor::new()?.decode(bytes, self.max_pixels, &mut self.scratch, into)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            png::decode(bytes, self.max_pixels, &mut self.scratch, into)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            webp::decode(bytes, self.max_pixels, into)
        } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
            gif::decode(bytes, self.max_pixels, &mut self.scratch, into)
        } else if bytes.starts_with(b"BM") {
            bmp::decode(bytes, self.max_pixels, &mut self.scratch, into)
        } else {
            Err(DecodeError::UnknownFormat {
                length: bytes.len(),
            })
        }
    }
}

#[cfg(test)]
mod tests;
