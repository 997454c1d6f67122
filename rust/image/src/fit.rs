//! How a whole image becomes one of a fixed size.

use serde::Deserialize;

use crate::resize::{Scratch, Target, resize};
use crate::{CropBox, Filter, Rgb8};

/// The size before the crop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The smallest that covers the wanted size: torchvision's `Resize(side)`, and for oblong sizes `ResizeKeepRatio` of
    /// open_clip and timm.
    #[default]
    Shortest,
    /// Whatever the aspect ratio.
    Squash,
    /// The largest within the wanted size: `ResizeKeepRatio(longest=1)`.
    Longest,
}

/// How half a pixel of the centre's offset is rounded in the resized image; of padding before it, the other way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// To even, as in torchvision.
    #[default]
    Round,
    /// Down, as in transformers.
    Floor,
}

/// Resizes, then crops the centre, or pads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    pub resize: Mode,
    pub filter: Filter,
    pub crop: Crop,
    /// Height and width before the crop; those of the result if `None`.
    pub resize_size: Option<[u32; 2]>,
    /// Of the padding.
    pub fill: [u8; 3],
}

impl Fit {
    /// Writes `width * height * 3` bytes of packed RGB.
    pub fn apply(
        &self,
        image: &Rgb8,
        [width, height]: [u32; 2],
        scratch: &mut Scratch,
        out: &mut [u8],
    ) {
        let source = [image.width(), image.height()];
        let [rows, columns] = self.resize_size.unwrap_or([height, width]);
        let resized = self.resized(source, [columns, rows]);
        let (x, left, part_width) = self.centre(resized[0], width);
        let (y, top, part_height) = self.centre(resized[1], height);
        let target = Target {
            width: resized[0],
            height: resized[1],
            window: CropBox { x, y, width: part_width, height: part_height },
            filter: self.filter,
        };
        let whole = CropBox::whole(source[0], source[1]);
        if [part_width, part_height] == [width, height] {
            return resize(image, whole, target, scratch, out);
        }
        let mut part = std::mem::take(&mut scratch.image);
        part.resize(part_width as usize * part_height as usize * 3, 0);
        resize(image, whole, target, scratch, &mut part);
        out.as_chunks_mut().0.fill(self.fill);
        let lines = out.chunks_exact_mut(width as usize * 3).skip(top as usize);
        let run = part_width as usize * 3;
        for (line, part) in lines.zip(part.chunks_exact(run)) {
            line[left as usize * 3..][..run].copy_from_slice(part);
        }
        scratch.image = part;
    }

    /// The part of an image with an influence on the result: only its pixels need to be decoded.
    pub fn part(&self, source: [u32; 2], [width, height]: [u32; 2]) -> CropBox {
        let [rows, columns] = self.resize_size.unwrap_or([height, width]);
        let resized = self.resized(source, [columns, rows]);
        let range = |axis: usize, wanted: u32| {
            let (first, _, length) = self.centre(resized[axis], wanted);
            let scale = f64::from(source[axis]) / f64::from(resized[axis]);
            let margin = self.filter.support() * scale.max(1.0) + 1.0;
            let start = (f64::from(first) * scale - margin).max(0.0) as u32;
            let end = (f64::from(first + length) * scale + margin) as u32;
            (start, end.min(source[axis]) - start)
        };
        let ((x, width), (y, height)) = (range(0, width), range(1, height));
        CropBox { x, y, width, height }
    }

    /// Width and height of the resized image.
    fn resized(&self, [width, height]: [u32; 2], wanted: [u32; 2]) -> [u32; 2] {
        let side = wanted[0];
        let longer =
            |long: u32, short: u32| (f64::from(side) * f64::from(long) / f64::from(short)) as u32;
        let ratios =
            [f64::from(width) / f64::from(wanted[0]), f64::from(height) / f64::from(wanted[1])];
        let scaled = |ratio: f64| {
            [width, height].map(|side| ((f64::from(side) / ratio).round_ties_even() as u32).max(1))
        };
        match self.resize {
            Mode::Squash => wanted,
            Mode::Shortest if side == wanted[1] && width <= height => [side, longer(height, width)],
            Mode::Shortest if side == wanted[1] => [longer(width, height), side],
            Mode::Shortest => scaled(ratios[0].min(ratios[1])),
            Mode::Longest => scaled(ratios[0].max(ratios[1])),
        }
    }

    /// Where the centre of `wanted` positions begins in `length`, where it begins in the result, and its length.
    fn centre(&self, length: u32, wanted: u32) -> (u32, u32, u32) {
        if length < wanted {
            let before = wanted - length;
            let floors = self.crop == Crop::Floor;
            return (0, if floors { before.div_ceil(2) } else { before / 2 }, length);
        }
        let start = match self.crop {
            Crop::Round => (f64::from(length - wanted) / 2.0).round_ties_even() as u32,
            Crop::Floor => (length - wanted) / 2,
        };
        (start, 0, wanted)
    }
}
