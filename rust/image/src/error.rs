//! Why an image cannot be decoded.

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error("not a JPEG, PNG or WebP file ({length} bytes)")]
    UnknownFormat { length: usize },
    #[error("{0} is not read from shards; prolip data build converts it to PNG")]
    Convertible(&'static str),
    #[error("{width} x {height} pixels are more than the limit of {max_pixels}")]
    TooLarge { width: u32, height: u32, max_pixels: u64 },
    #[error("{scans} scans of {width} x {height} pixels would take too long")]
    TooManyScans { scans: u64, width: u32, height: u32 },
    #[error("the file is truncated")]
    Truncated,
    #[error("JPEG: {0}")]
    Jpeg(String),
    #[error("PNG: {0}")]
    Png(#[from] png::DecodingError),
    #[error("PNG: a chunk's checksum is wrong")]
    Checksum,
    #[error("WebP: {0}")]
    Webp(&'static str),
    #[error("no memory for the decoder")]
    OutOfMemory,
}
