//! An image in memory as packed RGB pixels, and a part of one.

use crate::buffer::first_bytes;
use crate::error::DecodeError;

/// An image of packed 8-bit RGB pixels, rows from top to bottom. Its buffer is reused, so decoding into the same value again
/// does not allocate.
#[derive(Debug, Clone, Default)]
pub struct Rgb8 {
    width: u32,
    height: u32,
    // At least width * height * 3 bytes. Longer if an earlier image was larger, within the limits of `first_bytes`.
    pub(super) buffer: Vec<u8>,
}

impl Rgb8 {
    /// An image from its pixels. `None` if there are not `width * height * 3` bytes.
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

    /// As [`Self::reshape`], with `behind` extra bytes after the pixels, which are not part of the image.
    pub(super) fn reshape_loosely(&mut self, width: u32, height: u32, behind: usize) -> &mut [u8] {
        (self.width, self.height) = (width, height);
        first_bytes(
            &mut self.buffer,
            width as usize * height as usize * 3 + behind,
        )
    }

    /// Sets a new size and returns the pixels. Their content is unspecified.
    pub(super) fn reshape(&mut self, width: u32, height: u32) -> &mut [u8] {
        (self.width, self.height) = (width, height);
        first_bytes(&mut self.buffer, width as usize * height as usize * 3)
    }
}

/// A rectangular part of an image, in pixels.
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
    /// The whole image.
    #[must_use]
    pub fn whole(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    pub(super) fn check(self, width: u32, height: u32) {
        let inside = |start: u32, length: u32, whole: u32| {
            length > 0 && u64::from(start) + u64::from(length) <= u64::from(whole)
        };
        assert!(
            inside(self.x, self.width, width) && inside(self.y, self.height, height),
            "the part lies outside the image"
        );
    }
}

/// Checks the size in a header against the limit.
pub(super) fn check_size(width: u32, height: u32, max_pixels: u64) -> Result<(), DecodeError> {
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(DecodeError::TooLarge {
            width,
            height,
            max_pixels,
        });
    }
    Ok(())
}
