//! A fast decoder for ordinary JPEG files: sequential, 8 bits, luma with chroma in the usual samplings. Nearly all are.
//!
//! The pixels equal libjpeg-turbo's bit for bit. All entropy-coded bytes must be decoded, because the start of a row is
//! unknown, but only the wanted part is converted to pixels. For damaged files, other kinds of files and other processors the
//! result is `None`, and libjpeg-turbo takes over.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod header;
mod huffman;
mod islow;
mod pixels;
mod planes;
mod scan;

pub(super) use header::Header;

use crate::image::rgb::{CropBox, Rgb8};

/// Decodes images, with reused buffers.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    memory: pixels::Memory,
}

/// Parses the header. `None` if this decoder does not support the file.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        let header = Header::read(bytes)?;
        // With so few columns of chroma, libjpeg's smooth upsampling differs.
        let few = header.sampling.luma_blocks().0 == 2 && header.width <= 4;
        return (!few).then_some(header);
    }
    None
}

impl Baseline {
    /// Decodes a part of the image. After `None`, the content of `into` is unspecified.
    pub(super) fn decode(
        &mut self,
        header: &Header,
        source: &[u8],
        part: CropBox,
        into: &mut Rgb8,
    ) -> Option<()> {
        let source = planes::Source {
            header,
            bytes: source,
            part,
        };
        #[cfg(target_arch = "x86_64")]
        if avx512::available() {
            // SAFETY: the processor has the features that the kernels are compiled for.
            return unsafe { avx512::decode(source, &mut self.memory, into) };
        }
        None
    }
}

#[cfg(test)]
mod tests;
