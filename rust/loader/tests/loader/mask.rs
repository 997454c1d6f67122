//! Properties of masking.

use prolip_loader::rng::SampleRng;
use prolip_loader::text::mask::{Padding, draw_patches, mask_tokens, remove_tokens};
use proptest::prelude::*;

const PAD: i32 = 1;
const MASK: i32 = 99;

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
    fn removing_tokens_keeps_their_order_and_at_least_one((before, old, padding) in rows(), prob in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], seed in any::<u64>()) {
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
        prop_assert!(prob > 0.0 || after == before);
        prop_assert!(prob < 1.0 || fits(old.len().min(1)));
    }

    #[test]
    fn kept_patches_are_sorted_and_distinct(num_patches in 1usize..300, share in 0.0..=1.0f64, seed in any::<u64>()) {
        let mut kept = vec![-1; (num_patches as f64 * share) as usize];
        draw_patches(num_patches, &mut kept, &mut SampleRng::new(seed, 0, 0, 0));
        prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(kept.iter().all(|&patch| patch >= 0 && patch < num_patches as i64));
    }
}
