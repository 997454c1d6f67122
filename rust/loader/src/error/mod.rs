//! The loader's errors. Each names the place: a field, a shard, a sample.

mod archive;
mod image;
mod remote;
mod sample;
mod text;

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

pub use archive::{IndexError, TarError};
pub use image::DecodeError;
pub use remote::FetchError;
pub use sample::{Reason, SampleError};
pub use text::{JsonError, TokenizeError};

/// An invalid setting: the field, its value, and the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: {rule}")]
pub struct ConfigError {
    /// Dotted name of the field.
    pub field: String,
    /// The value.
    pub value: String,
    /// The rule.
    pub rule: String,
}

impl ConfigError {
    /// An error for one field.
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

/// Why a loader cannot open or continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// All shards are valid archives, but none contains a sample.
    #[error("data.shards is {0}: the shards hold no sample")]
    NoSample(String),
    /// A shard cannot be opened.
    #[error("shard {shard}: cannot open: {source}")]
    Open {
        /// The shard.
        shard: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A shard is not a valid archive, or has unsupported members.
    #[error("shard {shard}, byte {offset}: {source}")]
    Tar {
        /// The shard.
        shard: String,
        /// Offset of the header.
        offset: u64,
        /// What is wrong with it.
        source: TarError,
    },
    /// A shard cannot be fetched.
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
        "shard {shard} is not in the index {index}: rebuild it from all shards with `prolip data index`",
        index = .index.display()
    )]
    NotIndexed {
        /// The shard.
        shard: String,
        /// The index file.
        index: PathBuf,
    },
    /// A shard has changed since it was indexed.
    #[error(
        "shard {shard} has changed since {since}: {what}",
        since = .index.as_ref().map_or_else(
            || "the loader was opened".to_owned(),
            |index| format!("the index {} was built (rebuild it with `prolip data index`)", index.display())
        )
    )]
    Changed {
        /// The shard.
        shard: String,
        /// The index file, if there is one.
        index: Option<PathBuf>,
        /// What has changed.
        what: String,
    },
    /// There are too many bad samples.
    #[error(
        "{bad} of {seen} samples cannot be used, more than data.max_bad_fraction = {limit} allows ({counts}); the first: {first}"
    )]
    TooManyBad {
        /// Bad samples.
        bad: u64,
        /// All samples so far.
        seen: u64,
        /// The allowed share of bad samples.
        limit: f64,
        /// Counts per reason.
        counts: String,
        /// The first bad samples, with shard, key and reason.
        first: String,
    },
    /// The tokenizer failed on a batch.
    #[error("cannot tokenize the batch that starts with sample {key} of {shard}: {source}")]
    Tokenize {
        /// Shard of the batch's first sample.
        shard: String,
        /// Key of the batch's first sample.
        key: String,
        /// The tokenizer's error.
        source: TokenizeError,
    },
    /// A worker thread panicked, which is a bug.
    #[error("a loader thread panicked in stage {stage:?}: {message}")]
    Panicked {
        /// Its stage at the time.
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
    /// The error for a panic, from its payload.
    #[must_use]
    pub fn panicked(stage: &'static str, thrown: &(dyn Any + Send)) -> Self {
        let text = thrown.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| thrown.downcast_ref::<String>().cloned());
        Self::Panicked {
            stage,
            message: text.unwrap_or_else(|| "no message".to_owned()),
        }
    }

    /// Whether one unusable shard is the cause.
    #[must_use]
    pub fn is_shards(&self) -> bool {
        match self {
            Self::Fetch(error) => !error.here,
            _ => matches!(self, Self::Open { .. } | Self::Tar { .. }),
        }
    }
}
