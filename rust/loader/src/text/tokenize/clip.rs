//! CLIP's tokenizer: clean, split into words, byte-pair encoding, two special tokens around.

use std::collections::HashMap;
use std::fmt;

use ahash::RandomState;
use parking_lot::Mutex;

use super::bpe::{Bpe, BpeScratch};
use super::clean::Cleaning;
use super::split::{SPECIALS, Words};
use super::{TokenizeError, check_context_length};
use crate::text::mask::Padding;

/// open_clip's padding. 0 is also the id of `!` within a word, but the end token always follows the text.
pub(super) const PADDING: Padding = Padding { id: 0, left: false, in_text: true };

/// Longer words are not cached: they are rare and slow to compare.
const MAX_CACHED_BYTES: usize = 48;

/// A fuller cache is emptied, so that random text cannot fill the memory.
const MAX_CACHED_WORDS: usize = 1 << 16;

pub(super) struct ClipTokenizer {
    bpe: Bpe,
    cleaning: Cleaning,
    context_length: usize,
    /// One per thread that encodes, taken and returned once per batch.
    scratches: Mutex<Vec<Scratch>>,
}

impl fmt::Debug for ClipTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClipTokenizer")
            .field("context_length", &self.context_length)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Scratch {
    bpe: BpeScratch,
    /// Each word's ids are `ids[begin..end]`.
    words: HashMap<Box<[u8]>, (u32, u32), RandomState>,
    ids: Vec<i32>,
    plain: String,
    uncached: Vec<i32>,
}

impl ClipTokenizer {
    pub(super) fn new(
        merges: &[u8],
        context_length: usize,
        cleaning: Cleaning,
    ) -> Result<Self, TokenizeError> {
        check_context_length(context_length, SPECIALS.len())?;
        Ok(Self { bpe: Bpe::parse(merges)?, cleaning, context_length, scratches: Mutex::default() })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.bpe.vocab_size() + SPECIALS.len()
    }

    /// At the start (0) or end (1) of a row.
    fn special_id(&self, which: usize) -> i32 {
        (self.bpe.vocab_size() + which) as i32
    }

    /// The rows are already padded.
    pub(super) fn encode_batch(
        &self,
        captions: &[&str],
        out: &mut [i32],
    ) -> Result<(), TokenizeError> {
        let mut scratch = self.scratches.lock().pop().unwrap_or_default();
        let mut plain = std::mem::take(&mut scratch.plain);
        let mut rows = out.chunks_exact_mut(self.context_length);
        let outcome = self.cleaning.for_each(captions, &mut plain, |_, text| {
            if let Some(row) = rows.next() {
                self.encode_row(text, row, &mut scratch);
            }
            Ok(())
        });
        scratch.plain = plain;
        self.scratches.lock().push(scratch);
        outcome
    }

    /// The end token replaces the last id of a truncated caption.
    fn encode_row(&self, text: &str, row: &mut [i32], scratch: &mut Scratch) {
        let room = row.len() - SPECIALS.len();
        row[0] = self.special_id(0);
        let body = &mut row[1..=room];
        let mut used = 0;
        for word in Words::of(text) {
            let ids = self.encode_word(&text[word], scratch);
            let kept = ids.len().min(room - used);
            body[used..used + kept].copy_from_slice(&ids[..kept]);
            used += kept;
            if used == room {
                break;
            }
        }
        row[1 + used] = self.special_id(1);
    }

    #[inline]
    fn encode_word<'s>(&self, word: &str, scratch: &'s mut Scratch) -> &'s [i32] {
        let bytes = word.as_bytes();
        if let Some(&(begin, end)) = scratch.words.get(bytes) {
            return &scratch.ids[begin as usize..end as usize];
        }
        self.encode_new_word(word, scratch)
    }

    #[cold]
    fn encode_new_word<'s>(&self, word: &str, scratch: &'s mut Scratch) -> &'s [i32] {
        let bytes = word.as_bytes();
        if bytes.len() > MAX_CACHED_BYTES {
            scratch.uncached.clear();
            self.bpe.encode(bytes, &mut scratch.bpe, &mut scratch.uncached);
            return &scratch.uncached;
        }
        if scratch.words.len() >= MAX_CACHED_WORDS {
            scratch.words.clear();
            scratch.ids.clear();
        }
        let begin = scratch.ids.len();
        match SPECIALS.iter().position(|special| *special == word) {
            Some(which) => scratch.ids.push(self.special_id(which)),
            None => self.bpe.encode(bytes, &mut scratch.bpe, &mut scratch.ids),
        }
        // At most 2^16 words of 48 ids, so both indices fit.
        scratch.words.insert(bytes.into(), (begin as u32, scratch.ids.len() as u32));
        &scratch.ids[begin..]
    }
}
