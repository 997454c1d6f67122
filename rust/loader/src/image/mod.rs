//! Images: decoding, augmentation, and the evaluation transform, with the pixels of Pillow.

pub mod augment;
mod decode;
mod prepare;
mod rgb;

pub use decode::Decoder;
pub(crate) use prepare::Pictures;
pub use rgb::{CropBox, Rgb8};
