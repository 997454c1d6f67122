//! Why one sample cannot be used, and the reasons that are counted.

use super::archive::{IndexError, TarError};
use super::remote::FetchError;
use super::text::JsonError;
use prolip_image::DecodeError;

#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("no image: none of its members is a jpg, png, jpeg or webp")]
    NoImage,
    #[error("two members have the extension {0:?}")]
    Duplicate(String),
    #[error("its members have {size} bytes, more than max_member_bytes = {limit} allows")]
    TooLarge { size: u64, limit: u64 },
    #[error("its shard has changed since it was indexed: {0}")]
    Changed(String),
    #[error("cannot read the index: {0}")]
    Index(#[from] IndexError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot open its shard: {0}")]
    Open(#[source] std::io::Error),
    #[error(transparent)]
    Archive(#[from] TarError),
    #[error("cannot read its bytes: {0}")]
    Read(#[from] std::io::Error),
    #[error("cannot decode its image: {0}")]
    Decode(#[from] DecodeError),
    #[error("no caption: it has no .{0}")]
    NoCaption(&'static str),
    #[error("its caption is not UTF-8")]
    NotUtf8,
    #[error("cannot parse its json: {0}")]
    Json(#[from] JsonError),
    #[error("its json has no caption at {path:?}: {why}")]
    NoJsonCaption { path: String, why: String },
    #[error("its json has no weights for {path:?}: {why}")]
    JsonWeights { path: String, why: String },
    #[error("its caption has {bytes} bytes, more than max_caption_bytes = {limit}")]
    CaptionTooLong { bytes: usize, limit: usize },
}

impl SampleError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoImage => Reason::NoImage,
            Self::Duplicate(_) => Reason::Duplicate,
            Self::TooLarge { .. }
            | Self::Fetch(_)
            | Self::Open(_)
            | Self::Read(_)
            | Self::Index(_) => Reason::Read,
            Self::Archive(_) | Self::Changed(_) => Reason::Archive,
            Self::Decode(_) => Reason::Decode,
            Self::NoCaption(_)
            | Self::NotUtf8
            | Self::Json(_)
            | Self::NoJsonCaption { .. }
            | Self::JsonWeights { .. }
            | Self::CaptionTooLong { .. } => Reason::Caption,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    NoImage,
    Duplicate,
    Read,
    Decode,
    Caption,
    Archive,
}

impl Reason {
    /// In the order of the reasons' numbers.
    pub const NAMES: [&str; 6] = ["no_image", "duplicate", "read", "decode", "caption", "archive"];
}
