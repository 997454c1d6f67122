//! All errors of the loader. Each names the shard, the sample or the setting.

mod archive;
mod image;
mod printable;
mod remote;
mod sample;
mod text;

use std::any::Any;
use std::path::PathBuf;

pub use archive::{IndexError, TarError};
pub use image::DecodeError;
pub(crate) use printable::Printable;
pub use remote::FetchError;
pub use sample::{Reason, SampleError};
pub use text::{JsonError, TokenizeError};

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule} (got {value})")]
pub struct ConfigError {
    /// Dotted name of the field, relative to [`LoaderConfig`](crate::config::LoaderConfig).
    pub field: String,
    /// The given value.
    pub value: String,
    /// The rule that the value breaks.
    pub rule: String,
}

impl ConfigError {
    /// An error about one field.
    #[must_use]
    pub fn new(
        field: impl Into<String>,
        value: impl std::fmt::Display,
        rule: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), value: value.to_string(), rule: rule.into() }
    }
}

/// The error that a field breaks a rule, unless it holds.
pub(crate) fn check(
    holds: bool,
    field: &str,
    value: impl std::fmt::Display,
    rule: impl Into<String>,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::new(field, value, rule))
}

/// Why a loader cannot open or cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// All shards are valid archives, but none contains a sample.
    #[error("shards: the shards hold no sample (got {0})")]
    NoSample(String),
    /// A shard cannot be opened.
    #[error("shard {shard}: cannot open: {source}")]
    Open {
        /// The shard.
        shard: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A shard is not an archive, or holds something unsupported.
    #[error("shard {shard}, byte {offset}: {source}")]
    Tar {
        /// The shard.
        shard: String,
        /// Offset of the header.
        offset: u64,
        /// What is wrong.
        source: TarError,
    },
    /// A shard cannot be downloaded.
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
        "shard {shard} is not in the index {index}: index all shards again with `prolip data index`",
        index = .index.display()
    )]
    NotIndexed {
        /// The shard.
        shard: String,
        /// Path of the index file.
        index: PathBuf,
    },
    /// A shard has changed since it was indexed.
    #[error(
        "shard {shard} has changed since {since}: {what}",
        since = .index.as_ref().map_or_else(
            || "the loader was opened".to_owned(),
            |index| format!("the index {} was made (index the shards again with `prolip data index`)", index.display())
        )
    )]
    Changed {
        /// The shard.
        shard: String,
        /// Path of the index file, if there is one.
        index: Option<PathBuf>,
        /// What has changed.
        what: String,
    },
    /// Too many samples are bad.
    #[error(
        "{bad} of {seen} samples cannot be used, more than max_bad_fraction = {limit} allows ({counts}); the first: {first}"
    )]
    TooManyBad {
        /// Number of bad samples.
        bad: u64,
        /// Number of samples tried.
        seen: u64,
        /// The allowed share of bad samples.
        limit: f64,
        /// Counts per reason.
        counts: String,
        /// Descriptions of the first bad samples.
        first: String,
    },
    /// The tokenizer failed on a batch.
    #[error(
        "cannot tokenize the batch that starts with sample {} of {shard}: {source}",
        Printable(key)
    )]
    Tokenize {
        /// Shard of the first sample in the batch.
        shard: String,
        /// Key of the first sample in the batch.
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
    Spawn(#[source] std::io::Error),
}

impl Error {
    /// The error for a caught panic.
    #[must_use]
    pub fn panicked(stage: &'static str, thrown: &(dyn Any + Send)) -> Self {
        let text = thrown.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| thrown.downcast_ref::<String>().cloned());
        Self::Panicked { stage, message: text.unwrap_or_else(|| "no message".to_owned()) }
    }

    /// Whether a single shard is the cause.
    #[must_use]
    pub fn is_shards(&self) -> bool {
        match self {
            Self::Fetch(error) => !error.here,
            _ => matches!(self, Self::Open { .. } | Self::Tar { .. }),
        }
    }
}
