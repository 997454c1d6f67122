//! Images: decoding, augmentation, and the evaluation transform. All pixels equal Pillow's.

pub mod augment;
mod decode;
mod level;
mod prepare;
mod rgb;

pub use decode::Decoder;
pub use level::{check_level, level_names};
pub(crate) use prepare::ImagePreparer;
pub use rgb::{CropBox, Rgb8};
