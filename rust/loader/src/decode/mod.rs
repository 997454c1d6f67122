//! Encoded pictures to packed RGB, with the pixels that PIL's `Image.open(…).convert("RGB")` gives.
//!
//! The plainest JPEG files are decoded here, others by libjpeg-turbo, WebP by libwebp, PNG by the `png` crate, GIF and BMP
//! here. The format is told from the first bytes, never from a file name. Orientation tags, colour profiles and gamma are
//! left alone, as PIL leaves them. What PIL refuses (a truncated file, say) is an error here.

mod baseline;
mod bmp;
mod gif;
mod jpeg;
mod png;
mod webp;

use thiserror::Error;

use crate::buffer::first_bytes;

/// A picture of packed 8-bit RGB pixels, rows from top to bottom. The buffer is kept when the picture is
/// replaced, so that decoding into the same value over and over allocates nothing.
#[derive(Debug, Clone, Default)]
pub struct Rgb8 {
    width: u32,
    height: u32,
    // At least width * height * 3 bytes; longer where an earlier picture was larger, within the limits of `first_bytes`.
    buffer: Vec<u8>,
}

impl Rgb8 {
    /// A picture of the given pixels, or `None` where their number is not `width * height * 3`.
    #[must_use]
    pub fn from_pixels(width: u32, height: u32, pixels: Vec<u8>) -> Option<Self> {
        let expected = u64::from(width) * u64::from(height) * 3;
        (pixels.len() as u64 == expected).then_some(Self {
            width,
            height,
            buffer: pixels,
        })
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels, `height * width * 3` bytes.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.buffer[..self.width as usize * self.height as usize * 3]
    }

    /// As [`Self::reshape`], with so many bytes behind the pixels, which are not part of the picture.
    fn reshape_loosely(&mut self, width: u32, height: u32, behind: usize) -> &mut [u8] {
        (self.width, self.height) = (width, height);
        first_bytes(
            &mut self.buffer,
            width as usize * height as usize * 3 + behind,
        )
    }

    /// Gives the picture a new size and returns its pixels, whose content is whatever was there before.
    fn reshape(&mut self, width: u32, height: u32) -> &mut [u8] {
        (self.width, self.height) = (width, height);
        first_bytes(&mut self.buffer, width as usize * height as usize * 3)
    }
}

/// A part of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// Columns left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl CropBox {
    /// All of a picture.
    #[must_use]
    pub fn whole(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    fn check(self, width: u32, height: u32) {
        let inside = |start: u32, length: u32, whole: u32| {
            length > 0 && u64::from(start) + u64::from(length) <= u64::from(whole)
        };
        assert!(
            inside(self.x, self.width, width) && inside(self.y, self.height, height),
            "the part lies outside the picture"
        );
    }
}

/// Why a picture could not be decoded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first bytes belong to none of the formats.
    #[error("not a JPEG, PNG, WebP, GIF or BMP file ({length} bytes)")]
    UnknownFormat {
        /// Length of the input in bytes.
        length: usize,
    },
    /// The header announces more pixels than allowed.
    #[error("{width} x {height} pixels are more than the limit of {max_pixels}")]
    TooLarge {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// The data end before the picture does.
    #[error("the file is truncated")]
    Truncated,
    /// libjpeg-turbo's reason.
    #[error("JPEG: {0}")]
    Jpeg(String),
    /// The PNG decoder's reason.
    #[error("PNG: {0}")]
    Png(#[from] ::png::DecodingError),
    /// A chunk of a PNG is not what it was.
    #[error("PNG: a chunk's checksum is wrong")]
    Checksum,
    /// libwebp's reason.
    #[error("WebP: {0}")]
    Webp(&'static str),
    /// What is wrong with a GIF.
    #[error("GIF: {0}")]
    Gif(&'static str),
    /// What is wrong with a BMP.
    #[error("BMP: {0}")]
    Bmp(&'static str),
    /// A decoder could not be set up.
    #[error("no memory for the decoder")]
    OutOfMemory,
}

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
        let part = choose(into.width, into.height);
        part.check(into.width, into.height);
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
            gif::decode(bytes, self.max_pixels, into)
        } else if bytes.starts_with(b"BM") {
            bmp::decode(bytes, self.max_pixels, &mut self.scratch, into)
        } else {
            Err(DecodeError::UnknownFormat {
                length: bytes.len(),
            })
        }
    }
}

/// Checks the size in a header against the limit.
fn check_size(width: u32, height: u32, max_pixels: u64) -> Result<(), DecodeError> {
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(DecodeError::TooLarge {
            width,
            height,
            max_pixels,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
