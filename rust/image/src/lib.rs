//! Encoded images to the pixels that a model takes, equal to Pillow's to the bit. No threads and no global state: the caller
//! hands in the buffers.
//!
//! ```
//! use prolip_image::{Decoder, Fit, Rgb8, Scratch, ValueTable};
//!
//! /// 3 x 224 x 224 floats from -1 to 1: shortest side by the bicubic filter, then the centre.
//! fn prepare(bytes: &[u8]) -> Option<Vec<u8>> {
//!     let mut image = Rgb8::default();
//!     Decoder::new(1 << 26).decode(bytes, &mut image).ok()?;
//!     let mut pixels = vec![0; 224 * 224 * 3];
//!     Fit::default().apply(&image, [224, 224], &mut Scratch::default(), &mut pixels);
//!     let floats = (0..3).flat_map(|_| 0..=255u8).map(|value| f32::from(value) / 127.5 - 1.0);
//!     let table = ValueTable::new(floats.flat_map(f32::to_ne_bytes).collect());
//!     let mut planes = vec![0; pixels.len() * table.width()];
//!     table.translate_to_planes(&pixels, &mut planes);
//!     Some(planes)
//! }
//! let png = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/palette.png"));
//! assert_eq!(prepare(png).unwrap().len(), 3 * 224 * 224 * 4);
//! assert!(prepare(b"GIF89a").is_none());
//! ```
//!
//! ```text
//! fit, augment   what becomes of a decoded image, from the operations below
//! decode         JPEG, PNG and WebP to packed RGB       orientation   the turn that EXIF says
//! resize         by two passes of weighted sums         coefficients, filter  their weights
//! colour, gray, hue   colour jitter                     value_table   values to normalised floats
//! grid, patches  images at their own aspect ratio       kernels       one file per set of vector instructions
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod augment;
mod by_simd;
mod coefficients;
mod colour;
mod crop_rows;
mod decode;
mod error;
mod filter;
mod fit;
mod gray;
mod grid;
mod hue;
mod kernels;
mod orientation;
mod passes;
mod patches;
mod portable;
mod resize;
mod rgb;
mod slope;
mod value_table;

pub use augment::{AugmentDraw, JitterDraw, apply, colour_jitter};
pub use colour::{adjust_brightness, adjust_contrast, adjust_saturation};
pub use decode::Decoder;
pub use error::DecodeError;
pub use filter::Filter;
pub use fit::{Crop, Fit, Mode};
pub use gray::gray;
pub use grid::grid_of;
pub use hue::adjust_hue;
pub use patches::apply_in_patches;
pub use resize::{Scratch, resize_box};
pub use rgb::{CropBox, Rgb8};
pub use value_table::ValueTable;

#[cfg(test)]
mod tests;
