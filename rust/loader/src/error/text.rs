//! Why a json cannot be parsed, and why captions cannot become token ids.

use std::path::PathBuf;

/// Why bytes are not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The bytes are not text.
    #[error("not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// The text is not one JSON value.
    #[error(transparent)]
    Syntax(#[from] jiter::JiterError),
}

/// Why a tokenizer cannot be built, or a batch of captions not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// The tokenizer's file cannot be read.
    #[error("tokenizer {path}: cannot read the file")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a tokenizer that the `tokenizers` crate understands.
    #[error("tokenizer {path}: not a Hugging Face tokenizer.json: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// No padding id was given and the file does not say which one it is.
    #[error(
        "tokenizer {path}: no padding id: give pad_id, or a file with a `padding` section, or with `<pad>` or `[PAD]` in \
         its vocabulary"
    )]
    NoPadId {
        /// The file.
        path: PathBuf,
    },
    /// The padding id is no id of this vocabulary.
    #[error("tokenizer {path}: pad_id {pad_id} is not below the vocabulary's size {vocab_size}")]
    PadId {
        /// The file.
        path: PathBuf,
        /// The id that was given, or that the file's `padding` section names.
        pad_id: u32,
        /// One more than the largest id.
        vocab_size: usize,
    },
    /// The rows are too short to hold a caption's special tokens and at least one token of the caption.
    #[error(
        "tokenizer {name}: context_length {context_length} is too short: it must be above the {specials} special tokens"
    )]
    ContextLength {
        /// The file, or `clip`.
        name: String,
        /// The length that was asked for.
        context_length: usize,
        /// Special tokens added to every caption.
        specials: usize,
    },
    /// The text of merges is not a byte-pair vocabulary.
    #[error("clip merges, line {line}: {rule}")]
    Merges {
        /// Counted from 1.
        line: usize,
        /// What the line should have been.
        rule: &'static str,
    },
    /// The file's tokenizer failed on a caption.
    #[error("tokenizer {path}: cannot encode caption {index} of the batch: {message}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// The caption's place in the batch.
        index: usize,
        /// What the tokenizer says.
        message: String,
    },
    /// The cleaner that was given from outside failed, or broke its contract.
    #[error("captions cannot be cleaned: {0}")]
    Clean(#[source] Box<dyn std::error::Error + Send + Sync>),
}
