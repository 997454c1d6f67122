//! Why one sample cannot be used, and the reasons that are counted.

use super::archive::{IndexError, TarError};
use super::image::DecodeError;
use super::remote::FetchError;
use super::text::JsonError;

/// Why a sample cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// No member is an image.
    #[error("no image: none of its members is a jpg, jpeg, png, webp, gif or bmp")]
    NoImage,
    /// Two members of one sample have the same extension.
    #[error("two members have the extension {0:?}")]
    Duplicate(String),
    /// Its members are too large.
    #[error(
        "its members have {size} bytes, {largest} of them .{member}, more than max_member_bytes = {limit} allows"
    )]
    TooLarge {
        /// Total bytes of the needed members.
        size: u64,
        /// Extension of the largest member.
        member: String,
        /// Bytes of the largest member.
        largest: u64,
        /// The limit.
        limit: u64,
    },
    /// Its shard has changed since it was indexed.
    #[error("its shard has changed since it was indexed: {0}")]
    Changed(String),
    /// The index file can no longer be read.
    #[error("cannot read the index: {0}")]
    Index(#[from] IndexError),
    /// Its shard could not be downloaded.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Its shard no longer exists.
    #[error("cannot open its shard: {0}")]
    Open(#[source] std::io::Error),
    /// The shard is damaged here, or has changed.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// The bytes cannot be read.
    #[error("cannot read its bytes: {0}")]
    Read(#[from] std::io::Error),
    /// The image is damaged, too large, or not an image.
    #[error("cannot decode its image: {0}")]
    Decode(#[from] DecodeError),
    /// The member with the caption is missing.
    #[error("no caption: it has no .{0}")]
    NoCaption(&'static str),
    /// The caption is not UTF-8.
    #[error("its caption is not UTF-8")]
    NotUtf8,
    /// The json is invalid.
    #[error("cannot parse its json: {0}")]
    Json(#[from] JsonError),
    /// The json has no caption at the configured path.
    #[error("its json has no caption at {path:?}: {why}")]
    NoJsonCaption {
        /// The configured path.
        path: String,
        /// The first part that is missing, or what is there instead.
        why: String,
    },
    /// None of its captions can be drawn.
    #[error("its json has no weights for {path:?}: {why}")]
    JsonWeights {
        /// The path of the captions.
        path: String,
        /// What is wrong with the weights.
        why: String,
    },
    /// The caption is too long.
    #[error("its caption has {bytes} bytes, more than max_caption_bytes = {limit}")]
    CaptionTooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl SampleError {
    /// The reason under which the sample is counted.
    #[must_use]
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

/// Reasons for bad samples, counted separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No member is an image.
    NoImage,
    /// Two members of one sample have the same extension.
    Duplicate,
    /// The bytes cannot be read, or there are too many.
    Read,
    /// The image cannot be decoded.
    Decode,
    /// The caption is missing or cannot be read.
    Caption,
    /// The rest of the shard is damaged. It counts as one sample.
    Archive,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::NoImage, Self::Duplicate, Self::Read, Self::Decode, Self::Caption, Self::Archive];

    /// The reason's name in statistics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoImage => "no_image",
            Self::Duplicate => "duplicate",
            Self::Read => "read",
            Self::Decode => "decode",
            Self::Caption => "caption",
            Self::Archive => "archive",
        }
    }
}
