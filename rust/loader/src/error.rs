//! One variant per way to fail, each with the place.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use crate::decode::DecodeError;
use crate::json::JsonError;
use crate::location::Location;
use crate::store::FetchError;
use crate::tokenize::TokenizeError;

/// A setting that cannot work: the field, its value, the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: {rule}")]
pub struct ConfigError {
    /// Dotted name of the field.
    pub field: String,
    /// The value as given.
    pub value: String,
    /// What it should have been.
    pub rule: String,
}

impl ConfigError {
    /// The error of one field.
    #[must_use]
    pub fn new(
        field: impl Into<String>,
        value: impl std::fmt::Display,
        rule: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            value: value.to_string(),
            rule: rule.into(),
        }
    }
}

/// What is wrong with an archive, from its headers alone.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The operating system could not read.
    #[error("cannot read: {0}")]
    Read(#[from] std::io::Error),
    /// The file has no bytes.
    #[error("the file is empty, not an archive")]
    Empty,
    /// The file is compressed.
    #[error(
        "the archive is compressed ({0}): decompress it, or let its name end in .gz, .tgz or .zst as it is"
    )]
    Compressed(&'static str),
    /// The file ends inside a header or inside a member's data.
    #[error("the archive is truncated: {what} reaches beyond the file's {size} bytes")]
    Truncated {
        /// What is incomplete.
        what: String,
        /// Bytes of the file.
        size: u64,
    },
    /// The checksum of a header does not fit its bytes.
    #[error("damaged header: the checksum is {found}, the header says {expected}")]
    Checksum {
        /// Sum over the header's bytes.
        found: u64,
        /// Sum written in the header.
        expected: u64,
    },
    /// A number, name or extension of a header cannot be read.
    #[error("damaged header: {0}")]
    Header(&'static str),
    /// Sparse members would give wrong bytes.
    #[error("member {0:?} is sparse, which is not supported; write the shard without sparse files")]
    Sparse(String),
}

/// What is wrong with an index file.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The operating system could not read or write.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It begins otherwise.
    #[error("it is no index of shards")]
    NotAnIndex,
    /// It was written by another version.
    #[error("it has format {0}, and this version of prolip reads format 1: make it again")]
    Version(u32),
    /// Its bytes are not what was written.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
}

/// Why one sample cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// No member is a picture.
    #[error("no image: none of its members is a jpg, jpeg, png, webp, gif or bmp")]
    NoImage,
    /// Two members of one sample have the same extension.
    #[error("two members have the extension {0:?}")]
    Duplicate(String),
    /// Its members are larger than a picture and a caption should be.
    #[error(
        "its members have {size} bytes, {largest} of them .{member}, more than data.max_member_bytes = {limit} allows"
    )]
    TooLarge {
        /// Bytes of the members that are needed.
        size: u64,
        /// Extension of the largest.
        member: String,
        /// Bytes of the largest.
        largest: u64,
        /// The limit.
        limit: u64,
    },
    /// Its shard is not what was indexed.
    #[error("its shard has changed since it was indexed: {0}")]
    Changed(String),
    /// The index file cannot be read any more.
    #[error("cannot read the index: {0}")]
    Index(#[from] IndexError),
    /// Its shard could not be brought here.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Its shard is not there any more.
    #[error("cannot open its shard: {0}")]
    Open(#[source] std::io::Error),
    /// The shard is damaged at the sample's place, or is not what it was.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// The bytes cannot be read any more.
    #[error("cannot read its bytes: {0}")]
    Read(#[from] std::io::Error),
    /// The picture is damaged, too large, or no picture.
    #[error("cannot decode its image: {0}")]
    Decode(#[from] DecodeError),
    /// The member that a caption comes from is missing.
    #[error("no caption: it has no .{0}")]
    NoCaption(&'static str),
    /// The caption file is not text.
    #[error("its caption is not UTF-8")]
    NotUtf8,
    /// The json is damaged.
    #[error("cannot parse its json: {0}")]
    Json(#[from] JsonError),
    /// The json has no such caption.
    #[error("its json has no caption at {path:?}: {why}")]
    NoJsonCaption {
        /// The path of the configuration.
        path: String,
        /// The first part that is missing, or what stands there instead.
        why: String,
    },
    /// Of its captions none can be drawn.
    #[error("its json has no weights for {path:?}: {why}")]
    JsonWeights {
        /// The captions' path.
        path: String,
        /// What is wrong with the weights.
        why: String,
    },
    /// The caption is longer than any should be.
    #[error("its caption has {bytes} bytes, more than data.max_caption_bytes = {limit}")]
    CaptionTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl SampleError {
    /// The name under which the sample is counted.
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

/// Kinds of bad samples that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No member is a picture.
    NoImage,
    /// Two members of one sample have the same extension.
    Duplicate,
    /// The bytes cannot be read, or are too many.
    Read,
    /// The picture cannot be decoded.
    Decode,
    /// The caption is missing or cannot be read.
    Caption,
    /// The shard is damaged from here on; what it held is lost, and counts as one sample.
    Archive,
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 6] = [
        Self::NoImage,
        Self::Duplicate,
        Self::Read,
        Self::Decode,
        Self::Caption,
        Self::Archive,
    ];

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

/// Why a loader cannot be opened or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// All shards are whole archives, but none has a sample.
    #[error("data.shards is {0}: the shards hold no sample")]
    NoSample(String),
    /// A shard cannot be opened.
    #[error("shard {shard}: cannot open: {source}")]
    Open {
        /// The shard.
        shard: Location,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A shard is no archive, or holds what is not supported.
    #[error("shard {shard}, byte {offset}: {source}")]
    Tar {
        /// The shard.
        shard: Location,
        /// Where the header begins.
        offset: u64,
        /// What is wrong there.
        source: TarError,
    },
    /// A shard cannot be brought here.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// An index file cannot be read or written.
    #[error("index {index}: {source}", index = .index.display())]
    Index {
        /// The file.
        index: PathBuf,
        /// What is wrong with it.
        source: IndexError,
    },
    /// A shard is not in the index.
    #[error(
        "shard {shard} is not in the index {index}: make it again of all shards, with `prolip data index`",
        index = .index.display()
    )]
    NotIndexed {
        /// The shard.
        shard: Location,
        /// The index file.
        index: PathBuf,
    },
    /// A shard is not what it was when it was indexed.
    #[error(
        "shard {shard} has changed since {since}: {what}",
        since = .index.as_ref().map_or_else(
            || "the loader was opened".to_owned(),
            |index| format!("the index {} was made (make it again, with `prolip data index`)", index.display())
        )
    )]
    Changed {
        /// The shard.
        shard: Location,
        /// The index file, if it comes from one.
        index: Option<PathBuf>,
        /// What has changed.
        what: String,
    },
    /// Too many samples cannot be used.
    #[error(
        "{bad} of {seen} samples cannot be used, more than data.max_bad_fraction = {limit} allows ({counts}); the first: {first}"
    )]
    TooManyBad {
        /// Samples that cannot be used.
        bad: u64,
        /// Samples that were tried.
        seen: u64,
        /// The allowed share.
        limit: f64,
        /// Counts by reason.
        counts: String,
        /// The first bad samples, with shard, key and what is wrong.
        first: String,
    },
    /// The tokenizer failed on a batch.
    #[error("cannot tokenise the batch that begins with sample {key} of {shard}: {source}")]
    Tokenize {
        /// Shard of the batch's first sample.
        shard: Location,
        /// Key of the batch's first sample.
        key: String,
        /// What the tokenizer says.
        source: TokenizeError,
    },
    /// A worker thread panicked, which is a bug.
    #[error("a loader thread panicked in stage {stage:?}: {message}")]
    Panicked {
        /// The stage it was in.
        stage: &'static str,
        /// The panic's message.
        message: String,
    },
    /// The loader was closed while something waited for it.
    #[error("the loader is closed")]
    Closed,
    /// A thread could not be started.
    #[error("cannot start a loader thread: {0}")]
    Spawn(#[source] Arc<std::io::Error>),
}

impl Error {
    /// A panic, by what it was thrown with.
    #[must_use]
    pub fn panicked(stage: &'static str, thrown: &(dyn Any + Send)) -> Self {
        let text = thrown.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| thrown.downcast_ref::<String>().cloned());
        Self::Panicked {
            stage,
            message: text.unwrap_or_else(|| "no message".to_owned()),
        }
    }

    /// Whether it is about one shard that cannot be used.
    #[must_use]
    pub fn is_shards(&self) -> bool {
        match self {
            Self::Fetch(error) => !error.here,
            _ => matches!(self, Self::Open { .. } | Self::Tar { .. }),
        }
    }
}
