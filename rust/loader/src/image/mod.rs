//! Images: decoding, augmentation, and the evaluation transform. All pixels equal Pillow's.

pub mod augment;
mod decode;
mod grid;
mod orientation;
mod prepare;
mod rgb;
mod simd;
mod value_table;

pub use decode::Decoder;
pub use grid::grid_of;
pub(crate) use prepare::ImagePreparer;
pub use rgb::{CropBox, Rgb8};
pub use simd::{check_level, level_names};
pub use value_table::ValueTable;
