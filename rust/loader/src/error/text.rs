//! Why JSON cannot be parsed, and why captions cannot be tokenized.

use std::path::Path;

use super::ConfigError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    #[error(transparent)]
    Syntax(#[from] jiter::JiterError),
}

#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{file}: {rule}")]
    File { file: String, rule: String },
    #[error("captions cannot be cleaned: {0}")]
    Clean(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TokenizeError {
    pub(crate) fn file(path: &Path, rule: impl Into<String>) -> Self {
        Self::File { file: format!("tokenizer {}", path.display()), rule: rule.into() }
    }
}
