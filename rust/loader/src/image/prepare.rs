//! Turns an encoded image into its pixels in a batch: decodes the crop, then augments it or applies the evaluation transform.

use prolip_image::{
    AugmentDraw, CropBox, DecodeError, Decoder, Fit, Rgb8, Scratch, apply, apply_in_patches,
};

use super::draw;
use crate::config::LoaderConfig;
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
    fit: Fit,
}

impl<'config> ImagePreparer<'config> {
    pub fn new(config: &'config LoaderConfig) -> Self {
        Self { config, decoder: Decoder::new(config.max_pixels), pixels: Rgb8::default() }
    }

    /// Decodes `bytes`. The augmentation is drawn first, because only the pixels with an influence need decoding.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        rng: impl FnOnce() -> SampleRng,
    ) -> Result<Decoded<'_>, DecodeError> {
        let (config, mut draw) = (self.config, None);
        let draw_of = match config.native {
            Some(_) => draw::draw_native,
            None => draw::draw,
        };
        let choose = |width, height| match &config.augment {
            Some(augment) => draw.insert(draw_of(augment, width, height, &mut rng())).crop,
            None if config.native.is_some() => CropBox::whole(width, height),
            None => config.fit.part([width, height], [config.image_size; 2]),
        };
        let (decoder, pixels) = (&mut self.decoder, &mut self.pixels);
        match config.native {
            Some(_) => decoder.decode_turned(bytes, pixels, choose)?,
            None => decoder.decode_part(bytes, pixels, choose)?,
        };
        Ok(Decoded { pixels, draw, fit: config.fit })
    }
}

impl Decoded<'_> {
    /// Width and height of the encoded image; at native aspect after its turn.
    pub fn size(&self) -> [i32; 2] {
        [self.pixels.width(), self.pixels.height()].map(|side| side as i32)
    }

    /// Writes `size` x `size` pixels of packed RGB.
    pub fn write(&self, size: u32, scratch: &mut Scratch, out: &mut [u8]) {
        match &self.draw {
            Some(draw) => apply(self.pixels, draw, self.fit.filter, [size; 2], scratch, out),
            None => self.fit.apply(self.pixels, [size; 2], scratch, out),
        }
    }

    /// The part of the image that a grid of patches shows.
    pub fn part(&self) -> CropBox {
        let whole = CropBox::whole(self.pixels.width(), self.pixels.height());
        self.draw.map_or(whole, |draw| draw.crop)
    }

    /// Writes a grid of patches row by row, each with its pixels row by row: `rows * columns * patch * patch * 3` bytes.
    /// Without augmentation, the whole image is resized to the grid.
    pub fn write_patches(
        &self,
        patch: u32,
        grid: (u32, u32),
        scratch: &mut Scratch,
        out: &mut [u8],
    ) {
        let draw = self.draw.unwrap_or(AugmentDraw::of(self.part()));
        apply_in_patches(self.pixels, &draw, self.fit.filter, patch, grid, scratch, out);
    }
}
