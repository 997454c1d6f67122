//! Caption → token ids of fixed length.
//!
//! Two kinds of tokenizer behind one type: CLIP's byte-pair encoding, written here because it stands in the loader's hot
//! path ([`Tokenizer::clip`]), and any Hugging Face `tokenizer.json` ([`Tokenizer::from_file`]).

mod bpe;
mod clean;
mod clip;
mod file;
mod split;

use std::path::{Path, PathBuf};

pub use clean::{Clean, CleanText, Cleaning, is_clean};

use crate::mask::Padding;

use clip::ClipTokenizer;
use file::FileTokenizer;

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

#[derive(Debug)]
enum Kind {
    Clip(Box<ClipTokenizer>),
    File(Box<FileTokenizer>),
}

/// Turns captions into rows of ids, each of `context_length`, padded. Shared by all threads of a loader.
#[derive(Debug)]
pub struct Tokenizer {
    kind: Kind,
    context_length: usize,
}

impl Tokenizer {
    /// A Hugging Face `tokenizer.json`, with the file's own normaliser, special tokens and sides of truncation and padding.
    ///
    /// A caption that is too long loses tokens of its own, never the special ones. Padding is `pad_id`, else what the
    /// `tokenizer_config.json` beside the file says, else its `padding` section, else the id of `<pad>` or of `[PAD]`.
    /// Captions are cleaned before, if `cleaning` says how, as open_clip's `HFTokenizer` does.
    ///
    /// # Errors
    /// The file cannot be read or parsed, no padding id is known, or `context_length` leaves no room for a caption.
    pub fn from_file(
        path: &Path,
        context_length: usize,
        pad_id: Option<u32>,
        cleaning: Option<Cleaning>,
    ) -> Result<Self, TokenizeError> {
        let file = FileTokenizer::open(path, context_length, pad_id, cleaning)?;
        Ok(Self {
            kind: Kind::File(Box::new(file)),
            context_length,
        })
    }

    /// CLIP's byte-pair encoding: ids as `open_clip.SimpleTokenizer` gives them, padded with 0.
    ///
    /// `merges` is the text of `bpe_simple_vocab_16e6.txt`. Captions for which [`is_clean`] does not hold go through
    /// the cleaner, all of a batch in one call.
    ///
    /// # Errors
    /// The merges are not a vocabulary, or `context_length` leaves no room for a caption.
    pub fn clip(
        merges: &[u8],
        context_length: usize,
        cleaning: Cleaning,
    ) -> Result<Self, TokenizeError> {
        let clip = ClipTokenizer::new(merges, context_length, cleaning)?;
        Ok(Self {
            kind: Kind::Clip(Box::new(clip)),
            context_length,
        })
    }

    /// Writes one row of `context_length` ids a caption; every element of `out` is overwritten.
    ///
    /// # Errors
    /// The cleaner or the file's tokenizer failed; `out` then holds padding where nothing else was written.
    ///
    /// # Panics
    /// If `out` does not hold exactly `captions.len()` rows, which is a bug of the caller.
    pub fn encode_batch(&self, captions: &[&str], out: &mut [i32]) -> Result<(), TokenizeError> {
        assert_eq!(
            out.len(),
            captions.len() * self.context_length,
            "one row of ids a caption"
        );
        out.fill(self.pad_id());
        match &self.kind {
            Kind::Clip(clip) => clip.encode_batch(captions, out),
            Kind::File(file) => file.encode_batch(captions, out),
        }
    }

    /// Whether white space around a caption is a matter of its cleaning.
    pub fn cleans(&self) -> bool {
        match &self.kind {
            Kind::Clip(_) => true,
            Kind::File(file) => file.cleans(),
        }
    }

    /// Ids in a row.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// The id that fills a row behind its caption (or before it, where a file says so).
    pub fn pad_id(&self) -> i32 {
        self.padding().id
    }

    /// How rows are filled up, for masking.
    pub fn padding(&self) -> Padding {
        match &self.kind {
            Kind::Clip(_) => clip::PADDING,
            Kind::File(file) => file.padding(),
        }
    }

    /// One more than the largest id: the rows that a table of embeddings needs.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Clip(clip) => clip.vocab_size(),
            Kind::File(file) => file.vocab_size(),
        }
    }
}

#[cfg(test)]
mod clean_tests;
#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod tests;
