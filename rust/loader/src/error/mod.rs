//! All errors of the loader. Each names the shard, the sample or the setting.

mod archive;
mod remote;
mod sample;
mod text;

use std::any::Any;
use std::path::PathBuf;

pub use archive::{IndexError, TarError};
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

/// Each says what is wrong; [`Error::shard`] and [`Error::key`] say where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the shards hold no sample (got {0})")]
    NoSample(String),
    #[error("cannot open: {source}")]
    Open { shard: String, source: std::io::Error },
    #[error("byte {offset}: {source}")]
    Tar { shard: String, offset: u64, source: TarError },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("index {index}: {source}", index = .index.display())]
    Index { index: PathBuf, source: IndexError },
    #[error(
        "it is not in the index {index}: index all shards again with `prolip data index`",
        index = .index.display()
    )]
    NotIndexed { shard: String, index: PathBuf },
    #[error(
        "it has changed since {since}: {what}",
        since = .index.as_ref().map_or_else(
            || "the loader was opened".to_owned(),
            |index| format!("the index {} was made (index the shards again with `prolip data index`)", index.display())
        )
    )]
    Changed { shard: String, index: Option<PathBuf>, what: String },
    /// Not the shard that samples were chosen from.
    #[error("{what}")]
    Chosen { shard: String, what: String },
    #[error(
        "{bad} of {seen} samples cannot be used, more than max_bad_fraction = {limit} allows ({counts}); the first: {first}"
    )]
    TooManyBad { bad: u64, seen: u64, limit: f64, counts: String, first: String },
    #[error("cannot tokenize the batch that starts with this sample: {source}")]
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

    pub fn shard(&self) -> Option<&str> {
        match self {
            Self::Open { shard, .. }
            | Self::Tar { shard, .. }
            | Self::NotIndexed { shard, .. }
            | Self::Changed { shard, .. }
            | Self::Chosen { shard, .. }
            | Self::Tokenize { shard, .. } => Some(shard),
            Self::Fetch(error) => {
                Some(&error.address).filter(|address| !address.is_empty()).map(String::as_str)
            }
            _ => None,
        }
    }

    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Tokenize { key, .. } => Some(key),
            _ => None,
        }
    }

    pub(crate) fn sentence(&self) -> String {
        let shard = self.shard().map_or_else(String::new, |shard| format!("{shard}: "));
        format!("{shard}{self}")
    }

    pub fn is_shards(&self) -> bool {
        match self {
            Self::Fetch(error) => !error.here,
            _ => matches!(self, Self::Open { .. } | Self::Tar { .. }),
        }
    }
}
