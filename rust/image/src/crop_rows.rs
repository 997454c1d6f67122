//! The rows of a crop, for the resize kernels.

use crate::rgb::{CropBox, Rgb8};

#[derive(Clone, Copy)]
pub(super) struct CropRows<'a> {
    pub(super) pixels: &'a [u8],
    pub(super) stride: usize,
    pub(super) row_bytes: usize,
}

impl<'a> CropRows<'a> {
    pub(super) fn new(image: &'a Rgb8, crop: CropBox) -> Self {
        let stride = image.width() as usize * 3;
        let start = crop.y as usize * stride + crop.x as usize * 3;
        Self { pixels: &image.pixels()[start..], stride, row_bytes: crop.width as usize * 3 }
    }

    pub(super) fn row(self, index: usize) -> &'a [u8] {
        &self.pixels[index * self.stride..][..self.row_bytes]
    }
}
