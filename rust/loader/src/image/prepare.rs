//! Turns an encoded image into its pixels in a batch: decodes the crop, then augments it or applies the evaluation transform.

use super::augment::{self, AugmentDraw, Scratch};
use super::decode::Decoder;
use super::rgb::{CropBox, Rgb8};
use crate::config::LoaderConfig;
use crate::error::DecodeError;
use crate::rng::SampleRng;

/// Decodes and transforms images. Each thread has its own.
#[derive(Debug)]
pub(crate) struct ImagePreparer<'config> {
    config: &'config LoaderConfig,
    decoder: Decoder,
    pixels: Rgb8,
}

pub(crate) struct Decoded<'image> {
    pixels: &'image Rgb8,
    draw: Option<AugmentDraw>,
}

impl<'config> ImagePreparer<'config> {
    pub fn new(config: &'config LoaderConfig) -> Self {
        Self { config, decoder: Decoder::new(config.max_pixels), pixels: Rgb8::default() }
    }

    /// Decodes `bytes`. The augmentation is drawn first, because only the pixels of the crop need decoding.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        rng: impl FnOnce() -> SampleRng,
    ) -> Result<Decoded<'_>, DecodeError> {
        let (config, mut draw) = (self.config, None);
        let choose = |width, height| {
            let Some(augment) = &config.augment else {
                return CropBox::whole(width, height);
            };
            draw.insert(augment::draw(augment, width, height, &mut rng())).crop
        };
        let (decoder, pixels) = (&mut self.decoder, &mut self.pixels);
        decoder.decode_part(bytes, pixels, choose)?;
        Ok(Decoded { pixels, draw })
    }
}

impl Decoded<'_> {
    /// Width and height of the encoded image.
    pub fn size(&self) -> [i32; 2] {
        [self.pixels.width(), self.pixels.height()].map(|side| side as i32)
    }

    /// Writes `size` x `size` pixels of packed RGB.
    pub fn write(&self, size: u32, scratch: &mut Scratch, out: &mut [u8]) {
        match &self.draw {
            Some(draw) => augment::apply(self.pixels, draw, size, scratch, out),
            None => augment::evaluate(self.pixels, size, scratch, out),
        }
    }
}
