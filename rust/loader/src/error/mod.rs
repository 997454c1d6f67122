//! One variant per way to fail, each with the place.

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

/// Why a loader cannot be opened or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// All shards are intact archives, but none has a sample.
    #[error("data.shards is {0}: the shards hold no sample")]
    NoSample(String),
    /// A shard cannot be opened.
    #[error("shard {shard}: cannot open: {source}")]
    Open {
        /// The shard.
        shard: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A shard is no archive, or holds what is not supported.
    #[error("shard {shard}, byte {offset}: {source}")]
    Tar {
        /// The shard.
        shard: String,
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
        shard: String,
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
        shard: String,
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
        shard: String,
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
