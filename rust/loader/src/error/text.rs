//! Why JSON cannot be parsed, and why captions cannot be tokenized.

use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    #[error(transparent)]
    Syntax(#[from] jiter::JiterError),
}

/// Why a tokenizer cannot be built, or why a batch of captions cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    #[error("tokenizer {path}: cannot read the file")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("tokenizer {path}: not a Hugging Face tokenizer.json: {message}")]
    Parse { path: PathBuf, message: String },
    #[error(
        "tokenizer {path}: no padding id: give pad_id, or a file with a `padding` section, or with `<pad>` or `[PAD]` in \
         its vocabulary"
    )]
    NoPadId { path: PathBuf },
    #[error("tokenizer {path}: pad_id {pad_id} is not below the vocabulary's size {vocab_size}")]
    PadId { path: PathBuf, pad_id: u32, vocab_size: usize },
    /// A row is too short for the special tokens and one token of a caption.
    #[error(
        "tokenizer {name}: context_length {context_length} is too short: must be above the {specials} special tokens"
    )]
    ContextLength { name: String, context_length: usize, specials: usize },
    #[error("clip merges, line {line}: {rule}")]
    Merges { line: usize, rule: &'static str },
    #[error("tokenizer {path}: cannot encode caption {index} of the batch: {message}")]
    Encode { path: PathBuf, index: usize, message: String },
    #[error("captions cannot be cleaned: {0}")]
    Clean(#[source] Box<dyn std::error::Error + Send + Sync>),
}
