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

/// The augmentation of an image of this size, if there is any. At native aspect, the ratio of its crop is in multiples of the
/// image's own (timm's `RandomResizedCropToSequence`).
pub(crate) fn draw(
    config: &LoaderConfig,
    width: u32,
    height: u32,
    rng: impl FnOnce() -> SampleRng,
) -> Option<AugmentDraw> {
    let mut augment = config.augment.clone()?;
    if config.native.is_some() {
        let own = f64::from(width) / f64::from(height);
        augment.crop_ratio.0 *= own;
        augment.crop_ratio.1 *= own;
    }
    Some(augment::draw(&augment, width, height, &mut rng()))
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
            draw = self::draw(config, width, height, rng);
            draw.map_or(CropBox::whole(width, height), |draw| draw.crop)
        };
        let (decoder, pixels) = (&mut self.decoder, &mut self.pixels);
        match config.native {
            Some(_) => decoder.decode_turned(bytes, pixels, choose)?,
            None => decoder.decode_part(bytes, pixels, choose)?,
        };
        Ok(Decoded { pixels, draw })
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
            Some(draw) => augment::apply(self.pixels, draw, [size; 2], scratch, out),
            None => augment::evaluate(self.pixels, size, scratch, out),
        }
    }

    /// The augmentation, or one that leaves the whole image as it is.
    pub fn draw(&self) -> AugmentDraw {
        let whole = CropBox::whole(self.pixels.width(), self.pixels.height());
        self.draw.unwrap_or(AugmentDraw { crop: whole, jitter: None, gray: false })
    }

    /// Writes a grid of patches row by row, each with its pixels row by row: `rows * columns * patch * patch * 3` bytes.
    /// Without augmentation, the whole image is resized to the grid.
    pub fn write_patches(
        &self,
        patch: u32,
        (rows, columns): (u32, u32),
        scratch: &mut Scratch,
        out: &mut [u8],
    ) {
        let mut pixels = std::mem::take(&mut scratch.image);
        pixels.resize(out.len(), 0);
        let size = [columns * patch, rows * patch];
        augment::apply(self.pixels, &self.draw(), size, scratch, &mut pixels);
        let (side, columns) = (patch as usize, columns as usize);
        let strip = columns * side * side * 3;
        for (pixels, out) in pixels.chunks_exact(strip).zip(out.chunks_exact_mut(strip)) {
            for (place, line) in pixels.chunks_exact(side * 3).enumerate() {
                let (x, y) = (place % columns, place / columns);
                out[(x * side + y) * side * 3..][..side * 3].copy_from_slice(line);
            }
        }
        scratch.image = pixels;
    }
}
