//! Caption → token ids of fixed length.
//!
//! Two kinds of tokenizer behind one type: CLIP's byte-pair encoding, written here because it stands in the loader's hot
//! path ([`Tokenizer::clip`]), and any Hugging Face `tokenizer.json` ([`Tokenizer::from_file`]).

mod bpe;
mod clean;
mod clip;
mod file;
mod split;

use std::path::Path;

pub use clean::{Clean, CleanText, Cleaning, is_clean};

use super::mask::Padding;
use crate::error::TokenizeError;

use clip::ClipTokenizer;
use file::FileTokenizer;

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
