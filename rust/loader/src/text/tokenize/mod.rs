//! Tokenizers: captions to rows of token ids.
//!
//! CLIP's byte-pair encoding ([`Tokenizer::clip`], our own because it is faster and exact), or any Hugging Face `tokenizer.json`
//! ([`Tokenizer::from_file`]).

mod bpe;
mod clean;
mod clip;
mod file;
mod split;

use std::path::Path;

pub use clean::{Clean, CleanText, Cleaning, is_clean};

use super::mask::Padding;
use crate::error::{ConfigError, TokenizeError, check};

use clip::ClipTokenizer;
use file::FileTokenizer;

#[derive(Debug)]
enum Kind {
    Clip(Box<ClipTokenizer>),
    File(Box<FileTokenizer>),
}

#[derive(Debug)]
pub struct Tokenizer {
    kind: Kind,
    context_length: usize,
}

impl Tokenizer {
    /// A Hugging Face `tokenizer.json`, with its normaliser, special tokens, and sides of truncation and padding. Truncation
    /// never removes special tokens. The padding id is the first of: `pad_id`, that of the `tokenizer_config.json` beside the
    /// file, that of the file's `padding` section, the id of `<pad>` or `[PAD]`. Given `cleaning`, captions are cleaned first, as
    /// by open_clip's `HFTokenizer`.
    pub fn from_file(
        path: &Path,
        context_length: usize,
        pad_id: Option<u32>,
        cleaning: Option<Cleaning>,
    ) -> Result<Self, TokenizeError> {
        let file = FileTokenizer::open(path, context_length, pad_id, cleaning)?;
        Ok(Self { kind: Kind::File(Box::new(file)), context_length })
    }

    /// CLIP's tokenizer: the ids of `open_clip.SimpleTokenizer`, padded with 0.
    ///
    /// `merges` is the text of `bpe_simple_vocab_16e6.txt`. Captions that are not [`is_clean`] go to the cleaner, all of a
    /// batch in one call.
    pub fn clip(
        merges: &[u8],
        context_length: usize,
        cleaning: Cleaning,
    ) -> Result<Self, TokenizeError> {
        let clip = ClipTokenizer::new(merges, context_length, cleaning)?;
        Ok(Self { kind: Kind::Clip(Box::new(clip)), context_length })
    }

    /// Writes a row of `context_length` ids per caption, over everything in `out`.
    pub fn encode_batch(&self, captions: &[&str], out: &mut [i32]) -> Result<(), TokenizeError> {
        assert_eq!(out.len(), captions.len() * self.context_length, "one row of ids a caption");
        out.fill(self.pad_id());
        match &self.kind {
            Kind::Clip(clip) => clip.encode_batch(captions, out),
            Kind::File(file) => file.encode_batch(captions, out),
        }
    }

    /// White space around them included.
    pub fn cleans(&self) -> bool {
        match &self.kind {
            Kind::Clip(_) => true,
            Kind::File(file) => file.cleans(),
        }
    }

    pub fn context_length(&self) -> usize {
        self.context_length
    }

    pub fn pad_id(&self) -> i32 {
        self.padding().id
    }

    pub fn padding(&self) -> Padding {
        match &self.kind {
            Kind::Clip(_) => clip::PADDING,
            Kind::File(file) => file.padding(),
        }
    }

    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Clip(clip) => clip.vocab_size(),
            Kind::File(file) => file.vocab_size(),
        }
    }
}

fn check_context_length(length: usize, specials: usize) -> Result<(), ConfigError> {
    let rule = format!("must be above the {specials} special tokens");
    check(length > specials, "tokenizer.context_length", length, rule)
}

#[cfg(test)]
mod clean_tests;
#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod tests;
