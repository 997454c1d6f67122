//! The evaluation transforms.

use crate::resize::{Scratch, Target, resize};
use crate::{CropBox, Rgb8};

/// Bicubic resize of the shortest side to `size`, then the centre crop `size` x `size`, rounded as in torchvision's `Resize` and
/// `CenterCrop`. Writes `size * size * 3` bytes.
pub fn evaluate(image: &Rgb8, size: u32, scratch: &mut Scratch, out: &mut [u8]) {
    let (width, height) = (image.width(), image.height());
    let target = evaluation_target(width, height, size);
    let whole = CropBox::whole(width, height);
    resize(image, whole, target, scratch, out);
}

fn evaluation_target(width: u32, height: u32, size: u32) -> Target {
    let longer =
        |long: u32, short: u32| (f64::from(size) * f64::from(long) / f64::from(short)) as u32;
    let (new_width, new_height) =
        if width <= height { (size, longer(height, width)) } else { (longer(width, height), size) };
    let offset = |length: u32| (f64::from(length - size) / 2.0).round_ties_even() as u32;
    Target {
        width: new_width,
        height: new_height,
        window: CropBox { x: offset(new_width), y: offset(new_height), width: size, height: size },
    }
}
