//! All errors of the loader. Each names the shard, the sample or the setting.

mod archive;
mod printable;
mod remote;
mod sample;
mod text;

use std::any::Any;
use std::path::PathBuf;

pub use archive::{IndexError, TarError};
pub(crate) use printable::Printable;
pub use remote::FetchError;
pub use sample::{Reason, SampleError};
pub use text::{JsonError, TokenizeError};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule} (got {value})")]
pub struct ConfigError {
    pub field: String,
    pub value: String,
    pub rule: String,
}

impl ConfigError {
    pub fn new(
        field: impl Into<String>,
        value: impl std::fmt::Display,
        rule: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), value: value.to_string(), rule: rule.into() }
    }
}

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

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("shards: the shards hold no sample (got {0})")]
    NoSample(String),
    #[error("shard {shard}: cannot open: {source}")]
    Open { shard: String, source: std::io::Error },
    #[error("shard {shard}, byte {offset}: {source}")]
    Tar { shard: String, offset: u64, source: TarError },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("index {index}: {source}", index = .index.display())]
    Index { index: PathBuf, source: IndexError },
    #[error(
        "shard {shard} is not in the index {index}: index all shards again with `prolip data index`",
        index = .index.display()
    )]
    NotIndexed { shard: String, index: PathBuf },
    #[error(
        "shard {shard} has changed since {since}: {what}",
        since = .index.as_ref().map_or_else(
            || "the loader was opened".to_owned(),
            |index| format!("the index {} was made (index the shards again with `prolip data index`)", index.display())
        )
    )]
    Changed { shard: String, index: Option<PathBuf>, what: String },
    /// It is not the shard that samples were chosen from.
    #[error("shard {shard}: {what}")]
    Chosen { shard: String, what: String },
    #[error(
        "{bad} of {seen} samples cannot be used, more than max_bad_fraction = {limit} allows ({counts}); the first: {first}"
    )]
    TooManyBad { bad: u64, seen: u64, limit: f64, counts: String, first: String },
    #[error(
        "cannot tokenize the batch that starts with sample {} of {shard}: {source}",
        Printable(key)
    )]
    Tokenize { shard: String, key: String, source: TokenizeError },
    #[error("a loader thread panicked in stage {stage:?}: {message}")]
    Panicked { stage: &'static str, message: String },
    #[error("the loader is closed")]
    Closed,
    #[error("cannot start a loader thread: {0}")]
    Spawn(#[source] std::io::Error),
}

impl Error {
    pub fn panicked(stage: &'static str, thrown: &(dyn Any + Send)) -> Self {
        let text = thrown.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| thrown.downcast_ref::<String>().cloned());
        Self::Panicked { stage, message: text.unwrap_or_else(|| "no message".to_owned()) }
    }

    pub fn is_shards(&self) -> bool {
        match self {
            Self::Fetch(error) => !error.here,
            _ => matches!(self, Self::Open { .. } | Self::Tar { .. }),
        }
    }
}
