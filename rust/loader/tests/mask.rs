//! The laws of masking.

use prolip_loader::mask::{draw_patches, remove_tokens, replace_tokens};
use prolip_loader::rng::SampleRng;
use proptest::prelude::*;

const PAD: i32 = 1;
const MASK: i32 = 99;

/// A row of tokens with its padding.
fn rows() -> impl Strategy<Value = Vec<i32>> {
    (prop::collection::vec(2i32..50, 0..20), 0usize..10).prop_map(|(mut ids, padding)| {
        ids.resize(ids.len() + padding, PAD);
        ids
    })
}

fn tokens(ids: &[i32]) -> Vec<i32> {
    ids.iter().copied().filter(|&id| id != PAD).collect()
}

proptest! {
    #[test]
    fn replacing_leaves_padding_and_places_alone(before in rows(), prob in 0.0..=1.0f64, seed in any::<u64>()) {
        let mut after = before.clone();
        replace_tokens(&mut after, PAD, MASK, prob, &mut SampleRng::new(seed, 0, 0, 0));
        for (old, new) in before.iter().zip(&after) {
            prop_assert!(new == old || (*new == MASK && *old != PAD));
        }
    }

    #[test]
    fn removing_keeps_order_and_at_least_one(before in rows(), prob in 0.0..=1.0f64, seed in any::<u64>()) {
        let mut after = before.clone();
        remove_tokens(&mut after, PAD, prob, &mut SampleRng::new(seed, 0, 0, 0));
        let (old, new) = (tokens(&before), tokens(&after));
        // What is left stands at the left, and is a part of what was there in the same order.
        prop_assert_eq!(&after[..new.len()], &new[..]);
        let mut rest = old.iter();
        prop_assert!(new.iter().all(|id| rest.any(|other| other == id)));
        prop_assert_eq!(new.is_empty(), old.is_empty());
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
fn certain_draws_do_all_or_nothing() {
    let row = [5, 6, 7, PAD];
    let run = |mask: fn(&mut [i32], f64, &mut SampleRng), prob| {
        let mut ids = row;
        mask(&mut ids, prob, &mut SampleRng::new(0, 0, 0, 0));
        ids
    };
    let replace =
        |ids: &mut [i32], prob: f64, rng: &mut SampleRng| replace_tokens(ids, PAD, MASK, prob, rng);
    let remove =
        |ids: &mut [i32], prob: f64, rng: &mut SampleRng| remove_tokens(ids, PAD, prob, rng);
    assert_eq!(run(replace, 0.0), row);
    assert_eq!(run(replace, 1.0), [MASK, MASK, MASK, PAD]);
    assert_eq!(run(remove, 0.0), row);
    assert_eq!(run(remove, 1.0)[1..], [PAD; 3]);
}

#[test]
fn the_one_that_stays_is_any_of_them() {
    let mut counts = [0u32; 3];
    for seed in 0..3000 {
        let mut ids = [0, 2, 3];
        remove_tokens(&mut ids, PAD, 1.0, &mut SampleRng::new(seed, 0, 0, 0));
        counts[[0, 2, 3].iter().position(|&id| id == ids[0]).unwrap_or(0)] += 1;
    }
    assert!(
        counts.iter().all(|&count| count.abs_diff(1000) < 130),
        "{counts:?}"
    );
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
    assert!(
        counts.iter().all(|&count| count.abs_diff(1000) < 137),
        "{counts:?}"
    );
}
