//! A fast decoder for ordinary JPEG files: sequential, 8 bits, luma with chroma in the usual samplings. Nearly all are.
//!
//! The pixels equal libjpeg-turbo's bit for bit. All entropy-coded bytes must be decoded, because the start of a row is unknown,
//! but only the wanted part is converted to pixels. For damaged and other files the result is `None`; use another library for
//! them.
//!
//! ```
//! use prolip_jpeg::{CropBox, JpegDecoder, JpegHeader};
//!
//! /// The pixels, packed RGB.
//! fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
//!     let header = JpegHeader::read(bytes)?;
//!     let whole = CropBox::whole(header.width, header.height);
//!     let mut pixels = vec![0; header.buffer_length()];
//!     JpegDecoder::default().decode(&header, bytes, whole, &mut pixels)?;
//!     pixels.truncate(header.width as usize * header.height as usize * 3);
//!     Some(pixels)
//! }
//! assert!(decode(b"\xFF\xD8\xFF\xD9").is_none());
//! ```
//!
//! ```text
//! header   the marker segments             huffman   tables of codes, the bit reader
//! scan     entropy-coded data to coefficients       planes   coefficients to planes of samples
//! pixels   planes to pixels                kernels  the inverse DCT and colours, with vectors of any width
//! simd     which vector instructions the kernels use
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod bits;
pub mod buffer;
mod crop_box;
mod data;
mod header;
mod huffman;
mod kernels;
mod pixels;
mod planes;
mod progressive;
mod scan;
pub mod simd;
mod tables;

pub use crop_box::CropBox;
pub use header::JpegHeader;

#[derive(Debug, Default)]
pub struct JpegDecoder {
    memory: Memory,
}

#[derive(Debug, Default)]
struct Memory {
    planes: planes::Memory,
    pixels: pixels::Memory,
}

/// Bytes after the pixels of an image that the decoder may write to.
const MARGIN: usize = planes::CHUNK * 3;

impl JpegHeader {
    /// Bytes that [`JpegDecoder::decode`] needs for the pixels: three per pixel, and some that it may overwrite.
    pub fn buffer_length(&self) -> usize {
        self.width as usize * self.height as usize * 3 + MARGIN
    }
}

impl JpegDecoder {
    /// Decodes a part of the image to packed RGB, rows from top to bottom. `pixels` holds the whole image; pixels outside the
    /// part are unspecified. The result is `None` if anything in the file is irregular; then all pixels are unspecified.
    pub fn decode(
        &mut self,
        header: &JpegHeader,
        source: &[u8],
        part: CropBox,
        pixels: &mut [u8],
    ) -> Option<()> {
        part.check(header.width, header.height);
        assert!(pixels.len() >= header.buffer_length(), "too few bytes");
        let source = planes::Source { header, bytes: source, part };
        kernels::decode(source, &mut self.memory, pixels)
    }
}

#[cfg(test)]
mod tests;
