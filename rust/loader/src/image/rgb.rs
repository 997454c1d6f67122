//! An image in memory as packed RGB pixels.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
pub use prolip_jpeg::CropBox;

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
    pub fn from_pixels(width: u32, height: u32, pixels: Vec<u8>) -> Option<Self> {
        let expected = u64::from(width) * u64::from(height) * 3;
        (pixels.len() as u64 == expected).then_some(Self { width, height, buffer: pixels })
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels, `height * width * 3` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.buffer[..self.width as usize * self.height as usize * 3]
    }

    /// The pixels, `height * width * 3` bytes.
    pub fn into_pixels(mut self) -> Vec<u8> {
        self.buffer.truncate(self.width as usize * self.height as usize * 3);
        self.buffer
    }

    pub(super) fn turn(&mut self, orientation: Orientation) {
        let (width, height) = (self.width, self.height);
        let pixels = std::mem::take(self).into_pixels();
        let image = RgbImage::from_raw(width, height, pixels).unwrap_or_default();
        let mut image = DynamicImage::from(image);
        image.apply_orientation(orientation);
        (self.width, self.height) = (image.width(), image.height());
        self.buffer = image.into_bytes();
    }

    /// As [`Self::reshape`], but returns `length` bytes, of which those after the pixels are not part of the image.
    pub(super) fn reshape_loosely(&mut self, width: u32, height: u32, length: usize) -> &mut [u8] {
        (self.width, self.height) = (width, height);
        first_bytes(&mut self.buffer, length)
    }

    /// Sets a new size and returns the pixels. Their content is unspecified.
    pub(super) fn reshape(&mut self, width: u32, height: u32) -> &mut [u8] {
        (self.width, self.height) = (width, height);
        first_bytes(&mut self.buffer, width as usize * height as usize * 3)
    }
}

pub(super) fn check_size(width: u32, height: u32, max_pixels: u64) -> Result<(), DecodeError> {
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(DecodeError::TooLarge { width, height, max_pixels });
    }
    Ok(())
}
