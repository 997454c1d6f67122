//! Ids → masked ids; patches → kept patches (SPEC §7).

use crate::config::{MaskConfig, TextMode};
use crate::rng::SampleRng;

/// Masks a row of ids in place, as the configuration says.
pub fn mask_text(ids: &mut [i32], pad_id: i32, config: &MaskConfig, rng: &mut SampleRng) {
    match config.text_mode {
        TextMode::Replace => {
            replace_tokens(ids, pad_id, config.mask_id, config.text_mask_prob, rng)
        }
        TextMode::Remove => remove_tokens(ids, pad_id, config.text_mask_prob, rng),
    }
}

/// Replaces each token by `mask_id` with probability `prob`; padding is left alone.
pub fn replace_tokens(ids: &mut [i32], pad_id: i32, mask_id: i32, prob: f64, rng: &mut SampleRng) {
    for id in ids.iter_mut().filter(|id| **id != pad_id) {
        if rng.chance(prob) {
            *id = mask_id;
        }
    }
}

/// Takes out each token with probability `prob`; those that stay move left, and padding fills the rest.
///
/// Where all would go, one of them, drawn uniformly, stays: a text of padding alone says nothing.
pub fn remove_tokens(ids: &mut [i32], pad_id: i32, prob: f64, rng: &mut SampleRng) {
    let (mut tokens, mut kept) = (0u32, 0);
    let mut survivor = pad_id;
    for index in 0..ids.len() {
        let id = ids[index];
        if id == pad_id {
            continue;
        }
        tokens += 1;
        // The token that stays if all go: the n-th takes the place of those before it with probability 1/n.
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
    ids[kept..].fill(pad_id);
}

/// Draws `out.len()` of `num_patches` indices, each set equally likely, in ascending order.
pub fn draw_patches(num_patches: usize, out: &mut [i64], rng: &mut SampleRng) {
    // Selection sampling: an index is taken with the share of places left among the indices left.
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
