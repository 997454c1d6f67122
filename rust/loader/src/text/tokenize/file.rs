//! Tokenizers from a Hugging Face `tokenizer.json`, through the `tokenizers` crate.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tokenizers::{PaddingDirection, PostProcessor, TruncationDirection, TruncationParams};

use super::clean::Cleaning;
use super::{TokenizeError, check_context_length};
use crate::error::check;
use crate::text::json::JsonText;
use crate::text::mask::Padding;

/// For a file without a `padding` section.
const PAD_TOKENS: [&str; 2] = ["<pad>", "[PAD]"];

pub(super) struct FileTokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    context_length: usize,
    padding: Padding,
    vocab_size: usize,
    cleaning: Option<Cleaning>,
    /// One per thread that encodes at the same time.
    plain: Mutex<Vec<String>>,
}

impl fmt::Debug for FileTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTokenizer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FileTokenizer {
    pub(super) fn open(
        path: &Path,
        context_length: usize,
        pad_id: Option<u32>,
        cleaning: Option<Cleaning>,
    ) -> Result<Self, TokenizeError> {
        let mut inner = read_file(path)?;
        let config = Beside::read(path)?;
        let specials = inner.get_post_processor();
        let specials = specials.map_or(0, |processor| processor.added_tokens(false));
        check_context_length(context_length, specials)?;
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let padding = config.padding(path, &inner, pad_id, vocab_size)?;
        let truncation = config.truncation(&inner, context_length);
        inner.with_truncation(Some(truncation)).map_err(|error| parse_error(path, error))?;
        // We pad rows ourselves, to a fixed length.
        inner.with_padding(None);
        Ok(Self {
            path: path.to_owned(),
            inner,
            context_length,
            padding,
            vocab_size,
            cleaning,
            plain: Mutex::default(),
        })
    }

    pub(super) fn cleans(&self) -> bool {
        self.cleaning.is_some()
    }

    pub(super) fn padding(&self) -> Padding {
        self.padding
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(super) fn encode_batch(
        &self,
        captions: &[&str],
        out: &mut [i32],
    ) -> Result<(), TokenizeError> {
        let mut rows = out.chunks_exact_mut(self.context_length);
        let mut encode = |index: usize, text: &str| match rows.next() {
            Some(row) => self.encode_row(index, text, row),
            None => Ok(()),
        };
        let Some(cleaning) = &self.cleaning else {
            return (0..captions.len()).try_for_each(|index| encode(index, captions[index]));
        };
        let mut plain = self.plain.lock().pop().unwrap_or_default();
        let outcome = cleaning.for_each(captions, &mut plain, encode);
        self.plain.lock().push(plain);
        outcome
    }

    fn encode_row(&self, index: usize, text: &str, row: &mut [i32]) -> Result<(), TokenizeError> {
        let failed = |why: &str| {
            TokenizeError::file(
                &self.path,
                format!("cannot encode caption {index} of the batch: {why}"),
            )
        };
        let encoding =
            self.inner.encode_fast(text, true).map_err(|error| failed(&error.to_string()))?;
        let ids = encoding.get_ids();
        let free = row
            .len()
            .checked_sub(ids.len())
            .ok_or_else(|| failed("more ids than the context holds"))?;
        let begin = if self.padding.left { free } else { 0 };
        for (place, &id) in row[begin..].iter_mut().zip(ids) {
            *place = id as i32;
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> Result<tokenizers::Tokenizer, TokenizeError> {
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, error))?;
    tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| parse_error(path, error))
}

fn unreadable(path: &Path, error: std::io::Error) -> TokenizeError {
    TokenizeError::file(path, format!("cannot read the file: {error}"))
}

fn parse_error(path: &Path, error: impl fmt::Display) -> TokenizeError {
    TokenizeError::file(path, format!("not a Hugging Face tokenizer.json: {error}"))
}

/// From `tokenizer_config.json`. As in `transformers`, they override the file beside it.
#[derive(Default)]
struct Beside {
    pad_token: Option<String>,
    pads_left: Option<bool>,
    cuts_left: Option<bool>,
}

impl Beside {
    /// None if there is no such file.
    fn read(tokenizer: &Path) -> Result<Self, TokenizeError> {
        let path = tokenizer.with_file_name("tokenizer_config.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(unreadable(&path, error)),
        };
        let json = JsonText::parse(&bytes).map_err(|error| parse_error(&path, error))?;
        let json = json.value();
        let is_left = |key: &str| Some(json.get(key)?.as_str()? == "left");
        // An object with the token and its flags, or the token alone.
        let pad = json.get("pad_token");
        let pad_token = pad.and_then(|token| token.get("content").unwrap_or(token).as_str());
        Ok(Self {
            pad_token: pad_token.map(Cow::into_owned),
            pads_left: is_left("padding_side"),
            cuts_left: is_left("truncation_side"),
        })
    }

    /// `pad_id` overrides all files.
    fn padding(
        &self,
        path: &Path,
        inner: &tokenizers::Tokenizer,
        pad_id: Option<u32>,
        vocab_size: usize,
    ) -> Result<Padding, TokenizeError> {
        let in_config = || inner.token_to_id(self.pad_token.as_ref()?);
        let in_file = || inner.get_padding().map(|padding| padding.pad_id);
        let by_name = || PAD_TOKENS.iter().find_map(|token| inner.token_to_id(token));
        let known = pad_id.or_else(in_config).or_else(in_file).or_else(by_name);
        let rule = "no padding id: give pad_id, or a file with a `padding` section, or with `<pad>` or `[PAD]` in its \
                    vocabulary";
        let pad_id = known.ok_or_else(|| TokenizeError::file(path, rule))?;
        let rule = format!("must be below the vocabulary's size, {vocab_size}");
        check(
            (pad_id as usize) < vocab_size.min(i32::MAX as usize),
            "tokenizer.pad_id",
            pad_id,
            rule,
        )?;
        let left = self.pads_left.unwrap_or_else(|| {
            inner
                .get_padding()
                .is_some_and(|padding| matches!(padding.direction, PaddingDirection::Left))
        });
        // An added token never occurs in text; one of the model's vocabulary may.
        let in_text =
            !inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&pad_id);
        Ok(Padding { id: pad_id as i32, left, in_text })
    }

    /// How captions that are too long are cut.
    fn truncation(&self, inner: &tokenizers::Tokenizer, context_length: usize) -> TruncationParams {
        TruncationParams {
            max_length: context_length,
            stride: 0,
            direction: match (self.cuts_left, inner.get_truncation()) {
                (Some(true), _) => TruncationDirection::Left,
                (Some(false), _) => TruncationDirection::Right,
                (None, in_file) => in_file.map(|cut| cut.direction).unwrap_or_default(),
            },
            ..TruncationParams::default()
        }
    }
}
