//! Why an image cannot be decoded.

/// Why a picture could not be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first bytes belong to none of the formats.
    #[error("not a JPEG, PNG, WebP, GIF or BMP file ({length} bytes)")]
    UnknownFormat {
        /// Length of the input in bytes.
        length: usize,
    },
    /// The header announces more pixels than allowed.
    #[error("{width} x {height} pixels are more than the limit of {max_pixels}")]
    TooLarge {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// The data end before the picture does.
    #[error("the file is truncated")]
    Truncated,
    /// libjpeg-turbo's reason.
    #[error("JPEG: {0}")]
    Jpeg(String),
    /// The PNG decoder's reason.
    #[error("PNG: {0}")]
    Png(#[from] png::DecodingError),
    /// A chunk of a PNG is not what it was.
    #[error("PNG: a chunk's checksum is wrong")]
    Checksum,
    /// libwebp's reason.
    #[error("WebP: {0}")]
    Webp(&'static str),
    /// The GIF decoder's reason.
    #[error("GIF: {0}")]
    Gif(#[from] gif::DecodingError),
    /// The BMP decoder's reason.
    #[error("BMP: {0}")]
    Bmp(#[from] image::ImageError),
    /// There are no pixels.
    #[error("the file has no pixels")]
    Empty,
    /// A decoder could not be set up.
    #[error("no memory for the decoder")]
    OutOfMemory,
}
