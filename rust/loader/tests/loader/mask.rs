//! Properties of masking.

use prolip_loader::rng::SampleRng;
use prolip_loader::text::mask::{Padding, draw_patches, mask_tokens, remove_tokens};
use proptest::prelude::*;

const PAD: i32 = 1;
const MASK: i32 = 99;
/// Padding whose id does not occur in text.
const OWN: Padding = Padding { id: PAD, left: false, in_text: false };

/// A padded row, and its tokens. The token next to the padding never has the padding id, though others may.
fn rows() -> impl Strategy<Value = (Vec<i32>, Vec<i32>, Padding)> {
    let tokens = prop::collection::vec(1i32..6, 0..20);
    (tokens, 0usize..10, any::<(bool, bool)>()).prop_map(
        |(mut tokens, padding, (left, in_text))| {
            if !in_text {
                tokens.retain(|&id| id != PAD);
            }
            let end = if left { tokens.first_mut() } else { tokens.last_mut() };
            if let Some(end) = end {
                *end = (*end).max(2);
            }
            let fill = vec![PAD; padding];
            let ids = if left {
                [fill, tokens.clone()].concat()
            } else {
                [tokens.clone(), fill].concat()
            };
            (ids, tokens, Padding { id: PAD, left, in_text })
        },
    )
}

/// The places of a row's tokens.
fn text(ids: &[i32], tokens: usize, padding: Padding) -> std::ops::Range<usize> {
    if padding.left { ids.len() - tokens..ids.len() } else { 0..tokens }
}

proptest! {
    #[test]
    fn replacing_tokens_changes_neither_padding_nor_positions((before, tokens, padding) in rows(), prob in 0.0..=1.0f64, seed in any::<u64>()) {
        let (mut after, mut rng, mut drawn) = (before.clone(), SampleRng::new(seed, 0, 0, 0), Vec::new());
        mask_tokens(&mut after, padding, MASK, prob, |place| {
            let draw = rng.uniform();
            drawn.push((place, draw));
            draw
        });
        // One draw for each token, in their order, and none for padding.
        let text = text(&before, tokens.len(), padding);
        prop_assert!(drawn.iter().map(|&(place, _)| place).eq(text));
        let mut expected = before;
        for (place, _) in drawn.iter().filter(|&&(_, draw)| draw < prob) {
            expected[*place] = MASK;
        }
        prop_assert_eq!(after, expected);
    }

    #[test]
    fn removing_tokens_keeps_their_order_and_at_least_one((before, old, padding) in rows(), prob in 0.0..=1.0f64, seed in any::<u64>()) {
        let mut after = before.clone();
        remove_tokens(&mut after, padding, prob, &mut SampleRng::new(seed, 0, 0, 0));
        // The tokens that stay are together and in the old order. How many stay is unknown here, because the last of them
        // may have the padding id.
        let fits = |count: usize| {
            let new = text(&after, count, padding);
            let mut rest = old.iter();
            (0..after.len()).all(|place| new.contains(&place) || after[place] == PAD)
                && after[new].iter().all(|id| rest.any(|other| other == id))
        };
        prop_assert!((old.len().min(1)..=old.len()).any(fits));
    }

    #[test]
    fn kept_patches_are_sorted_and_distinct(num_patches in 1usize..300, share in 0.0..=1.0f64, seed in any::<u64>()) {
        let mut kept = vec![-1; (num_patches as f64 * share) as usize];
        draw_patches(num_patches, &mut kept, &mut SampleRng::new(seed, 0, 0, 0));
        prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(kept.iter().all(|&patch| patch >= 0 && patch < num_patches as i64));
    }
}

#[test]
fn probabilities_of_zero_and_one_mask_nothing_and_everything() {
    let row = [5, 6, 7, PAD];
    let run = |mask: fn(&mut [i32], f64, &mut SampleRng), prob| {
        let mut ids = row;
        mask(&mut ids, prob, &mut SampleRng::new(0, 0, 0, 0));
        ids
    };
    let replace = |ids: &mut [i32], prob: f64, rng: &mut SampleRng| {
        mask_tokens(ids, OWN, MASK, prob, |_| rng.uniform())
    };
    let remove =
        |ids: &mut [i32], prob: f64, rng: &mut SampleRng| remove_tokens(ids, OWN, prob, rng);
    assert_eq!(run(replace, 0.0), row);
    assert_eq!(run(replace, 1.0), [MASK, MASK, MASK, PAD]);
    assert_eq!(run(remove, 0.0), row);
    assert_eq!(run(remove, 1.0)[1..], [PAD; 3]);
}

#[test]
fn the_remaining_token_is_drawn_uniformly() {
    let mut counts = [0u32; 3];
    for seed in 0..3000 {
        let mut ids = [0, 2, 3];
        remove_tokens(&mut ids, OWN, 1.0, &mut SampleRng::new(seed, 0, 0, 0));
        counts[[0, 2, 3].iter().position(|&id| id == ids[0]).unwrap_or(0)] += 1;
    }
    assert!(counts.iter().all(|&count| count.abs_diff(1000) < 130), "{counts:?}");
}

#[test]
fn every_patch_is_kept_equally_often() {
    let mut counts = [0u32; 16];
    for seed in 0..4000 {
        let mut kept = [0; 4];
        draw_patches(16, &mut kept, &mut SampleRng::new(seed, 0, 0, 0));
        kept.iter().for_each(|&patch| counts[patch as usize] += 1);
    }
    // Five standard deviations: sqrt(4000 * 1/4 * 3/4) = 27.
    assert!(counts.iter().all(|&count| count.abs_diff(1000) < 137), "{counts:?}");
}

/// In CLIP's vocabulary 0 is both the padding and `!`. The official code, written for another tokenizer, would read "hi!" as "hi".
#[test]
fn a_text_token_with_the_id_of_padding_is_masked() {
    let mask = |ids: &[i32], left, in_text| {
        let mut ids = ids.to_vec();
        let padding = Padding { id: 0, left, in_text };
        mask_tokens(&mut ids, padding, MASK, 1.0, |_| 0.5);
        ids
    };
    let row = [7, 0, 5, 0, 8, 0, 0];
    assert_eq!(mask(&row, false, true), [MASK, MASK, MASK, MASK, MASK, 0, 0]);
    assert_eq!(mask(&row, false, false), [MASK, 0, MASK, 0, MASK, 0, 0]);
    let row = [0, 0, 7, 0, 8];
    assert_eq!(mask(&row, true, true), [0, 0, MASK, MASK, MASK]);
    assert_eq!(mask(&row, true, false), [0, 0, MASK, 0, MASK]);
    assert_eq!(mask(&[0; 3], false, true), [0; 3]);
    assert_eq!(mask(&[0; 3], true, true), [0; 3]);
    let mut ids = [7, 0, 8, 0, 0];
    let clip = Padding { id: 0, left: false, in_text: true };
    remove_tokens(&mut ids, clip, 0.0, &mut SampleRng::new(0, 0, 0, 0));
    assert_eq!(ids, [7, 0, 8, 0, 0]);
}
