//! An encoded picture → its pixels in a batch: decoded as far as a crop shows it, then varied or prepared for evaluation.

use super::augment::{self, AugmentDraw, Scratch};
use super::decode::Decoder;
use super::rgb::{CropBox, Rgb8};
use crate::config::LoaderConfig;
use crate::error::DecodeError;
use crate::rng::SampleRng;

/// Decodes pictures one after another; each thread has its own.
#[derive(Debug)]
pub(crate) struct Pictures<'config> {
    config: &'config LoaderConfig,
    decoder: Decoder,
    pixels: Rgb8,
}

/// A decoded picture, and what is drawn for it.
pub(crate) struct Decoded<'picture> {
    pixels: &'picture Rgb8,
    draw: Option<AugmentDraw>,
}

impl<'config> Pictures<'config> {
    pub fn new(config: &'config LoaderConfig) -> Self {
        Self {
            config,
            decoder: Decoder::new(config.max_pixels),
            pixels: Rgb8::default(),
        }
    }

    /// Decodes `bytes`. The draw comes first: what the crop does not show need not become pixels.
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
            draw.insert(augment::draw(augment, width, height, &mut rng()))
                .crop
        };
        let (decoder, pixels) = (&mut self.decoder, &mut self.pixels);
        decoder.decode_part(bytes, pixels, choose)?;
        Ok(Decoded { pixels, draw })
    }
}

impl Decoded<'_> {
    /// Writes `size` x `size` pixels of packed RGB.
    pub fn write(&self, size: u32, scratch: &mut Scratch, out: &mut [u8]) {
        match &self.draw {
            Some(draw) => augment::apply(self.pixels, draw, size, scratch, out),
            None => augment::evaluate(self.pixels, size, scratch, out),
        }
    }
}
