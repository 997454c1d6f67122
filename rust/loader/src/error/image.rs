//! Why an image cannot be decoded.

/// Why an image cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first bytes match none of the formats.
    #[error("not a JPEG, PNG, WebP, GIF or BMP file ({length} bytes)")]
    UnknownFormat {
        /// Length of the input in bytes.
        length: usize,
    },
    /// The image has more pixels than allowed, according to its header.
    #[error("{width} x {height} pixels are more than the limit of {max_pixels}")]
    TooLarge {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// The file ends before the image is complete.
    #[error("the file is truncated")]
    Truncated,
    /// libjpeg-turbo's error.
    #[error("JPEG: {0}")]
    Jpeg(String),
    /// The PNG decoder's error.
    #[error("PNG: {0}")]
    Png(#[from] png::DecodingError),
    /// The checksum of a PNG chunk is wrong.
    #[error("PNG: a chunk's checksum is wrong")]
    Checksum,
    /// libwebp's error.
    #[error("WebP: {0}")]
    Webp(&'static str),
    /// The GIF decoder's error.
    #[error("GIF: {0}")]
    Gif(#[from] gif::DecodingError),
    /// The BMP decoder's error.
    #[error("BMP: {0}")]
    Bmp(#[from] image::ImageError),
    /// The image has no pixels.
    #[error("the file has no pixels")]
    Empty,
    /// There is no memory for a decoder.
    #[error("no memory for the decoder")]
    OutOfMemory,
}
