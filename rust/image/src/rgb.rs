//! An image in memory as packed RGB pixels.

pub use prolip_jpeg::CropBox;

use crate::error::DecodeError;
use prolip_jpeg::buffer::first_bytes;

/// Packed pixels, rows from top to bottom. The buffer is reused, so decoding into the same value does not allocate.
#[derive(Debug, Clone, Default)]
pub struct Rgb8 {
    width: u32,
    height: u32,
    // At least width * height * 3 bytes; more after a larger image, within the limits of `first_bytes`.
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

    /// `height * width * 3` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.buffer[..self.width as usize * self.height as usize * 3]
    }

    /// `height * width * 3` bytes.
    pub fn into_pixels(mut self) -> Vec<u8> {
        self.buffer.truncate(self.width as usize * self.height as usize * 3);
        self.buffer
    }

    /// By its EXIF orientation, 1 to 8.
    pub(super) fn turn(&mut self, orientation: u32) {
        let (width, height) = (self.width as usize, self.height as usize);
        let is_transposed = orientation > 4;
        let (from_right, from_bottom) =
            (matches!(orientation, 2 | 3 | 7 | 8), matches!(orientation, 3 | 4 | 6 | 7));
        let source = std::mem::take(self).into_pixels();
        let source = source.as_chunks::<3>().0;
        let (columns, rows) = if is_transposed { (height, width) } else { (width, height) };
        let turned = self.reshape(columns as u32, rows as u32).as_chunks_mut::<3>().0;
        for (place, pixel) in turned.iter_mut().enumerate() {
            let (row, column) = (place / columns, place % columns);
            let (x, y) = if is_transposed { (row, column) } else { (column, row) };
            let x = if from_right { width - 1 - x } else { x };
            let y = if from_bottom { height - 1 - y } else { y };
            *pixel = source[y * width + x];
        }
    }

    /// As [`Self::reshape`], but returns `length` bytes; those after the pixels are not part of the image.
    pub(super) fn reshape_loosely(&mut self, width: u32, height: u32, length: usize) -> &mut [u8] {
        (self.width, self.height) = (width, height);
        first_bytes(&mut self.buffer, length)
    }

    /// Returns the pixels, whose content is unspecified.
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
