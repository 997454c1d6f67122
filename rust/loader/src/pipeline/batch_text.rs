//! The captions of a batch → ids and masked ids. B rows, C captions a sample, L ids a caption, M masked rows.

use super::row::Row;
use crate::config::MaskConfig;
use crate::error::TokenizeError;
use crate::rng::SampleRng;
use crate::text::mask;
use crate::text::tokenize::Tokenizer;

/// The rows of a batch, the first `masked` of which are masked.
pub(crate) struct Texts<'batch> {
    pub tokenizer: &'batch Tokenizer,
    pub rows: &'batch [Row],
    /// C.
    pub slots: usize,
    /// M.
    pub masked: usize,
}

impl Texts<'_> {
    /// Ids of every caption, `[C, B, L]`, and behind them those of the masked rows' more general captions, which
    /// [`Self::mask`] takes away: a tokenizer is called once, however many it gets.
    pub fn encode(&self, out: &mut Vec<i32>) -> Result<(), TokenizeError> {
        let mut captions = Vec::with_capacity(self.slots * self.rows.len());
        for slot in 0..self.slots {
            captions.extend(self.rows.iter().map(|row| row.captions[slot].text.as_str()));
        }
        captions.extend((0..self.slots).flat_map(|slot| self.general(slot).flatten()));
        if !self.tokenizer.cleans() {
            // A file of text ends with a line feed. To a tokenizer that cleans, white space at the end may mean something.
            for caption in &mut captions {
                *caption = caption.trim();
            }
        }
        out.resize(captions.len() * self.tokenizer.context_length(), 0);
        self.tokenizer.encode_batch(&captions, out)
    }

    /// Of each masked row, the more general caption that takes its text's place, if one was drawn.
    fn general(&self, slot: usize) -> impl Iterator<Item = Option<&str>> {
        let masked = self.rows[..self.masked].iter();
        masked.map(move |row| row.captions[slot].general())
    }

    /// Masked ids, `[C, M, L]`: a more general caption where one was drawn, else tokens masked by the draws of the row's
    /// sample. Of `ids` the `[C, B, L]` stay.
    pub fn mask(
        &self,
        ids: &mut Vec<i32>,
        config: &MaskConfig,
        draws: impl Fn(usize) -> SampleRng,
        out: &mut Vec<i32>,
    ) {
        let length = self.tokenizer.context_length();
        let padding = self.tokenizer.padding();
        out.resize(self.slots * self.masked * length, 0);
        let (plain, general) = ids.split_at(self.slots * self.rows.len() * length);
        let mut general = general.chunks_exact(length);
        let mut rngs: Vec<SampleRng> = (0..self.masked).map(draws).collect();
        let mut targets = out.chunks_exact_mut(length);
        for slot in 0..self.slots {
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
