//! What is drawn of each image, and which vector instructions prepare it.

mod draw;
mod simd;

pub use draw::{draw, draw_native};
pub use simd::{check_level, level_names};
