//! Tokenizes and masks the captions of a batch. B rows, C captions per sample, L token ids per caption, M masked
//! rows.

use super::batch::Row;
use crate::config::MaskConfig;
use crate::error::TokenizeError;
use crate::rng::SampleRng;
use crate::text::mask;
use crate::text::tokenize::Tokenizer;

pub(crate) struct BatchText<'batch> {
    pub tokenizer: &'batch Tokenizer,
    pub rows: &'batch [Row],
    pub caption_slots: usize,
    pub masked_rows: usize,
}

impl BatchText<'_> {
    /// Token ids of every caption, `[C, B, L]`, and in the same call those of the masked rows' more general captions, which
    /// [`Self::mask`] removes.
    pub fn encode(&self, out: &mut Vec<i32>) -> Result<(), TokenizeError> {
        let mut captions = Vec::with_capacity(self.caption_slots * self.rows.len());
        for slot in 0..self.caption_slots {
            captions.extend(self.rows.iter().map(|row| row.captions[slot].text.as_str()));
        }
        captions.extend((0..self.caption_slots).flat_map(|slot| self.general(slot).flatten()));
        if !self.tokenizer.cleans() {
            // A text file ends with a line feed. With cleaning, trailing white space may have a meaning.
            for caption in &mut captions {
                *caption = caption.trim();
            }
        }
        out.resize(captions.len() * self.tokenizer.context_length(), 0);
        self.tokenizer.encode_batch(&captions, out)
    }

    /// Per masked row, `None` if none was drawn.
    fn general(&self, slot: usize) -> impl Iterator<Item = Option<&str>> {
        let masked_rows = self.rows[..self.masked_rows].iter();
        masked_rows.map(move |row| row.captions[slot].general())
    }

    /// Masked token ids, `[C, M, L]`: a more general caption if one was drawn, otherwise the row's own with some masked at
    /// random. Cuts `ids` to `[C, B, L]`.
    pub fn mask(
        &self,
        ids: &mut Vec<i32>,
        config: &MaskConfig,
        draws: impl Fn(usize) -> SampleRng,
        out: &mut Vec<i32>,
    ) {
        let length = self.tokenizer.context_length();
        let padding = self.tokenizer.padding();
        out.resize(self.caption_slots * self.masked_rows * length, 0);
        let (plain, general) = ids.split_at(self.caption_slots * self.rows.len() * length);
        let mut general = general.chunks_exact(length);
        let mut rngs: Vec<SampleRng> = (0..self.masked_rows).map(draws).collect();
        let mut targets = out.chunks_exact_mut(length);
        for slot in 0..self.caption_slots {
            let first = plain[slot * self.rows.len() * length..].chunks_exact(length);
            let rows = self.general(slot).zip(first).zip(&mut rngs);
            for (((caption, row), rng), target) in rows.zip(targets.by_ref()) {
                if caption.is_some() {
                    target.copy_from_slice(general.next().unwrap_or(row));
                } else {
                    target.copy_from_slice(row);
                    mask::mask_text(target, padding, config, rng);
                }
            }
        }
        let kept = plain.len();
        ids.truncate(kept);
    }
}
