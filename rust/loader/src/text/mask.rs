//! Masking of token ids, and the choice of kept patches (docs/specification.md, section 7).

use std::ops::Range;

use crate::config::{MaskConfig, TextMode};
use crate::rng::SampleRng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    pub id: i32,
    /// Padding comes before the text.
    pub left: bool,
    /// Text may contain the padding id, as with CLIP's `!`. Then only the run at the padded end is padding; otherwise the id is,
    /// everywhere, as in the official code.
    pub in_text: bool,
}

impl Padding {
    fn text(self, ids: &[i32]) -> Range<usize> {
        let is_text = |id: &i32| *id != self.id;
        match (self.in_text, self.left) {
            (false, _) => 0..ids.len(),
            (true, false) => 0..ids.iter().rposition(is_text).map_or(0, |last| last + 1),
            (true, true) => ids.iter().position(is_text).unwrap_or(ids.len())..ids.len(),
        }
    }

    /// Whether an id within [`Self::text`] is a token.
    fn is_token(self, id: i32) -> bool {
        self.in_text || id != self.id
    }
}

pub fn mask_text(ids: &mut [i32], padding: Padding, config: &MaskConfig, rng: &mut SampleRng) {
    let prob = config.text_mask_prob;
    match config.text_mode {
        TextMode::Replace => mask_tokens(ids, padding, config.mask_id, prob, |_| rng.uniform()),
        TextMode::Remove => remove_tokens(ids, padding, prob, rng),
    }
}

/// Replaces each token by `mask_id` if its draw, a number in [0, 1), is below `prob`. `draw` gets the index of each token, from
/// first to last. Padding is left alone.
pub fn mask_tokens(
    ids: &mut [i32],
    padding: Padding,
    mask_id: i32,
    prob: f64,
    mut draw: impl FnMut(usize) -> f64,
) {
    for place in padding.text(ids) {
        if padding.is_token(ids[place]) && draw(place) < prob {
            ids[place] = mask_id;
        }
    }
}

/// Removes each token with probability `prob`. The others move together, and padding fills the rest. One token always stays,
/// drawn uniformly: a row of padding alone says nothing.
pub fn remove_tokens(ids: &mut [i32], padding: Padding, prob: f64, rng: &mut SampleRng) {
    let (mut tokens, mut kept) = (0u32, 0);
    let mut survivor = padding.id;
    for place in padding.text(ids) {
        let id = ids[place];
        if !padding.is_token(id) {
            continue;
        }
        tokens += 1;
        // The one that stays if all others go. The n-th token replaces the earlier choice with probability 1/n.
        if rng.below(tokens) == 0 {
            survivor = id;
        }
        if !rng.chance(prob) {
            ids[kept] = id;
            kept += 1;
        }
    }
    if kept == 0 && tokens > 0 {
        ids[0] = survivor;
        kept = 1;
    }
    ids[kept..].fill(padding.id);
    if padding.left {
        ids.rotate_left(kept);
    }
}

/// Draws `out.len()` of `num_patches` indices, ascending. Every set is equally likely.
pub fn draw_patches(num_patches: usize, out: &mut [i64], rng: &mut SampleRng) {
    // Selection sampling: take an index with probability (indices still needed) / (indices left).
    let mut place = 0;
    for index in 0..num_patches {
        if place == out.len() {
            return;
        }
        let (wanted, left) = (out.len() - place, num_patches - index);
        if (rng.below(left as u32) as usize) < wanted {
            out[place] = index as i64;
            place += 1;
        }
    }
}
