//! Encoded images to the values that a model takes, with pixels equal to Pillow's to the bit.
//!
//! ```
//! use prolip_image::{Fit, Form, Preparation, Source, ValueTable, prepare};
//!
//! // 3 x 224 x 224 floats from -1 to 1: shortest side by the bicubic filter, then the centre.
//! let floats = (0..3).flat_map(|_| 0..=255u8).map(|value| f32::from(value) / 127.5 - 1.0);
//! let table = ValueTable::new(floats.flat_map(f32::to_ne_bytes).collect());
//! let (form, fit) = (Form::Fixed([224, 224]), Fit::default());
//! let how = Preparation { form, fit, turned: None, table: Some(table), planes: true };
//! let png = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/palette.png"));
//! let mut values = vec![0; 2 * how.cell_bytes()];
//! let done = prepare(&[Source::Bytes(png), Source::Bytes(b"GIF89a")], &how, 2, &mut values);
//! assert!(done[0].is_ok() && done[1].is_err());
//! ```
//!
//! ```text
//! prepare        bytes to values: decode, then fit, augment or patches, then value_table
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
mod prepare;
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
pub use prepare::{Form, Preparation, Prepared, Preparer, Source, prepare};
pub use resize::{Scratch, resize_box};
pub use rgb::{CropBox, Rgb8};
pub use value_table::ValueTable;

/// Default limit on the pixels of an image, Pillow's `MAX_IMAGE_PIXELS`: beyond it Pillow warns of a decompression bomb.
pub const MAX_PIXELS: u64 = 89_478_485;

#[cfg(test)]
mod tests;
