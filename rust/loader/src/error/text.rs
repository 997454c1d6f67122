//! Why JSON cannot be parsed, and why captions cannot be tokenized.

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

/// Why a tokenizer cannot be built, or why a batch of captions cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// The tokenizer's file cannot be read.
    #[error("tokenizer {path}: cannot read the file")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The `tokenizers` crate cannot read the file.
    #[error("tokenizer {path}: not a Hugging Face tokenizer.json: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        message: String,
    },
    /// No padding id was given, and the file defines none.
    #[error(
        "tokenizer {path}: no padding id: give pad_id, or a file with a `padding` section, or with `<pad>` or `[PAD]` in \
         its vocabulary"
    )]
    NoPadId {
        /// The file.
        path: PathBuf,
    },
    /// The padding id is not in the vocabulary.
    #[error("tokenizer {path}: pad_id {pad_id} is not below the vocabulary's size {vocab_size}")]
    PadId {
        /// The file.
        path: PathBuf,
        /// The id, as given or from the file's `padding` section.
        pad_id: u32,
        /// One more than the largest id.
        vocab_size: usize,
    },
    /// A row is too short for the special tokens and one token of a caption.
    #[error(
        "tokenizer {name}: context_length {context_length} is too short: must be above the {specials} special tokens"
    )]
    ContextLength {
        /// The file, or `clip`.
        name: String,
        /// The requested length.
        context_length: usize,
        /// Number of special tokens that are added to every caption.
        specials: usize,
    },
    /// The merges are not a valid byte-pair vocabulary.
    #[error("clip merges, line {line}: {rule}")]
    Merges {
        /// Line number, from 1.
        line: usize,
        /// The rule that the line breaks.
        rule: &'static str,
    },
    /// The tokenizer failed on a caption.
    #[error("tokenizer {path}: cannot encode caption {index} of the batch: {message}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// Index of the caption in the batch.
        index: usize,
        /// The tokenizer's error.
        message: String,
    },
    /// The cleaning function failed or returned something invalid.
    #[error("captions cannot be cleaned: {0}")]
    Clean(#[source] Box<dyn std::error::Error + Send + Sync>),
}
