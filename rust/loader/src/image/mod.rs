//! Images of samples: what is drawn of each, and its pixels in a batch.

mod draw;
mod prepare;
mod simd;

pub use draw::{draw, draw_native};
pub(crate) use prepare::ImagePreparer;
pub use simd::{check_level, level_names};
