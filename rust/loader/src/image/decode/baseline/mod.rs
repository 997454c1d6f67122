//! The plainest JPEG files, which nearly all are: sequential, 8 bits, luma with chroma of the usual samplings.
//!
//! The pixels are libjpeg-turbo's, bit for bit. All of the entropy-coded bytes are decoded, since nothing tells where in
//! them a row begins, but only what the wanted part shows becomes pixels. Whatever is not as it should be, and every other
//! kind of file or processor, is left to libjpeg-turbo: then the answer is `None`.

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

/// Decodes pictures one after another.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    memory: pixels::Memory,
}

/// The header of a file that may be decoded here.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        let header = Header::read(bytes)?;
        // Of so few columns of chroma libjpeg's smooth upsampling is another one.
        let few = header.sampling.luma_blocks().0 == 2 && header.width <= 4;
        return (!few).then_some(header);
    }
    None
}

impl Baseline {
    /// Decodes the `part` of the picture whose header is given. After `None` the content of `into` is unspecified.
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
