//! Properties of the sample order: each sample once, resumable anywhere, for any changes of the number of ranks.

use std::collections::{BTreeMap, BTreeSet};

use prolip_loader::config::LastBatch;
use prolip_loader::order::{BatchPlan, BatchPlans, Cursor, Leg, OrderSettings};
use prolip_loader::shards::SampleId;
use proptest::prelude::*;
use proptest::sample::Index;

#[derive(Debug, Clone)]
struct Case {
    sizes: Vec<u32>,
    window: usize,
    seed: u64,
    epochs: u64,
    last_batch: LastBatch,
}

/// Number of ranks, and samples in a rank's batch.
type Ranks = (u64, u64);

impl Case {
    fn total(&self) -> u64 {
        self.sizes.iter().map(|&size| u64::from(size)).sum()
    }

    /// Every sample, in the order of the files.
    fn all(&self) -> Vec<SampleId> {
        let shards = self.sizes.iter().zip(0..);
        shards
            .flat_map(|(&size, shard)| (0..size).map(move |sample| SampleId { shard, sample }))
            .collect()
    }

    fn rules(&self, rank: u64, (world_size, batch_size): Ranks) -> OrderSettings {
        OrderSettings {
            seed: self.seed,
            window: self.window,
            batch_size,
            rank,
            world_size,
            last_batch: self.last_batch,
            num_epochs: Some(self.epochs),
            streamed: false,
            num_samples: None,
            sampler: None,
        }
    }

    fn plans(&self, rank: u64, ranks: Ranks, from: &Cursor) -> Vec<BatchPlan> {
        let mut route = BatchPlans::new(self.rules(rank, ranks), from);
        std::iter::from_fn(|| route.next(&self.sizes).unwrap()).collect()
    }

    /// The batches of every rank from a cursor to the end of its epoch.
    fn rest_of_epoch(&self, ranks: Ranks, from: &Cursor) -> Vec<Vec<BatchPlan>> {
        let one = Case { epochs: from.epoch + 1, ..self.clone() };
        (0..ranks.0).map(|rank| one.plans(rank, ranks, from)).collect()
    }
}

fn samples<'plans>(plans: impl IntoIterator<Item = &'plans BatchPlan>) -> Vec<SampleId> {
    plans.into_iter().flat_map(|plan| plan.samples.clone()).collect()
}

fn counted(samples: Vec<SampleId>) -> BTreeMap<SampleId, usize> {
    let mut counts = BTreeMap::new();
    for sample in samples {
        *counts.entry(sample).or_default() += 1;
    }
    counts
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = prop::collection::vec(0u32..12, 1..7);
    let windows = prop_oneof![Just(0usize), 1usize..20, Just(1_000_000), Just(usize::MAX)];
    let kinds = prop_oneof![Just(LastBatch::Drop), Just(LastBatch::Pad), Just(LastBatch::Keep)];
    (sizes, windows, any::<u64>(), 1u64..4, kinds).prop_map(
        |(sizes, window, seed, epochs, last_batch)| Case {
            sizes,
            window,
            seed,
            epochs,
            last_batch,
        },
    )
}

fn ranks() -> impl Strategy<Value = Ranks> {
    (1u64..7, 1u64..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn an_epoch_has_every_sample_once_also_if_ranks_change(
        case in cases(), stays in prop::collection::vec((ranks(), any::<Index>()), 0..4), last in ranks()
    ) {
        let (mut cursor, mut read) = (Cursor::default(), Vec::new());
        for (ranks, stop) in stays {
            let plans = case.rest_of_epoch(ranks, &cursor);
            let longest = plans.iter().max_by_key(|plans| plans.len()).unwrap();
            let steps = stop.index(longest.len() + 1);
            if steps > 0 {
                cursor = longest[steps - 1].cursor.clone();
            }
            read.extend(plans.iter().flat_map(|plans| samples(plans.iter().take(steps))));
        }
        let plans = case.rest_of_epoch(last, &cursor);
        let steps: Vec<usize> = plans.iter().map(Vec::len).collect();
        read.extend(plans.iter().flat_map(samples));
        let (used, counts) = (read.len() as u64, counted(read));
        let once = counts.values().all(|&count| count == 1);
        match case.last_batch {
            LastBatch::Drop => {
                prop_assert!(once);
                prop_assert!(case.total() - used < last.0 * last.1);
            }
            LastBatch::Keep => {
                prop_assert!(once);
                prop_assert_eq!(used, case.total());
                prop_assert!(steps.iter().all(|&count| count.abs_diff(steps[0]) <= 1));
            }
            LastBatch::Pad => prop_assert_eq!(counts.len() as u64, case.total()),
        }
        if case.last_batch != LastBatch::Keep {
            prop_assert!(steps.iter().all(|&count| count == steps[0]));
            prop_assert!(plans.iter().flatten().all(|plan| plan.samples.len() as u64 == last.1));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn all_ranks_are_in_the_same_epoch(case in cases(), ranks in ranks()) {
        let mut steps = 0;
        let plans: Vec<BatchPlan> = (0..ranks.0).flat_map(|rank| case.plans(rank, ranks, &Cursor::default())).collect();
        for epoch in 0..case.epochs {
            let of_epoch: Vec<&BatchPlan> = plans.iter().filter(|plan| plan.epoch == epoch).collect();
            let counts = counted(samples(of_epoch.iter().copied()));
            if epoch == 0 {
                steps = of_epoch.len();
            }
            // In an evaluation with fewer samples than ranks, ranks without a sample stop at once.
            prop_assert_eq!(of_epoch.len(), steps);
            match case.last_batch {
                LastBatch::Drop => prop_assert_eq!(steps as u64, case.total() / (ranks.0 * ranks.1) * ranks.0),
                LastBatch::Pad => {
                    prop_assert_eq!(steps as u64, case.total().div_ceil(ranks.0 * ranks.1) * ranks.0);
                    prop_assert_eq!(counts.into_keys().collect::<Vec<_>>(), case.all());
                }
                LastBatch::Keep => prop_assert_eq!(counts.into_keys().collect::<Vec<_>>(), case.all()),
            }
        }
    }

    #[test]
    fn a_resumed_order_equals_an_uninterrupted_one(
        case in cases(), before in ranks(), ranks in ranks(), leave in any::<Index>(), at in any::<Index>()
    ) {
        // The same within a second leg.
        let first = case.rest_of_epoch(before, &Cursor::default());
        let from = first[0].get(leave.index(first[0].len() + 1)).map_or_else(Cursor::default, |plan| plan.cursor.clone());
        for rank in 0..ranks.0 {
            let whole = case.plans(rank, ranks, &from);
            if whole.is_empty() {
                continue;
            }
            let stop = at.index(whole.len());
            prop_assert_eq!(&whole[stop + 1..], &case.plans(rank, ranks, &whole[stop].cursor)[..]);
        }
    }

    #[test]
    fn a_rank_pads_with_its_own_first_samples(case in cases(), ranks in ranks()) {
        let case = Case { last_batch: LastBatch::Pad, epochs: 1, ..case };
        let parts = Case { last_batch: LastBatch::Keep, ..case.clone() };
        for rank in 0..ranks.0 {
            let own = samples(&parts.plans(rank, ranks, &Cursor::default()));
            let padded = samples(&case.plans(rank, ranks, &Cursor::default()));
            if !own.is_empty() {
                let round: Vec<SampleId> = own.iter().copied().cycle().take(padded.len()).collect();
                prop_assert_eq!(padded, round);
            }
        }
    }

    #[test]
    fn a_rank_reads_neighbouring_shards_and_shuffles_within_a_window(case in cases(), world_size in 1u64..7) {
        let case = Case { last_batch: LastBatch::Keep, epochs: 1, ..case };
        let list = case.rules(0, (1, 1)).list(&case.sizes, 0);
        let mut listed = Vec::new();
        list.append_to(&mut listed, 0..case.total());
        let places: BTreeMap<SampleId, usize> = listed.iter().copied().zip(0..).collect();
        for rank in 0..world_size {
            let read = samples(&case.plans(rank, (world_size, 3), &Cursor::default()));
            let places: Vec<usize> = read.iter().map(|sample| places[sample]).collect();
            let first = places.iter().min().copied().unwrap_or(0);
            prop_assert_eq!(places.iter().max().map_or(0, |last| last + 1 - first), read.len());
            for (number, &place) in places.iter().enumerate() {
                prop_assert!((first + number).abs_diff(place) < case.window.max(1));
            }
        }
    }

    #[test]
    fn a_batch_lists_the_shards_of_its_samples(case in cases(), ranks in ranks()) {
        for plan in case.plans(0, ranks, &Cursor::default()) {
            let named: BTreeSet<u32> = plan.shards.iter().map(|needed| needed.shard).collect();
            prop_assert_eq!(named.len(), plan.shards.len());
            prop_assert!(plan.samples.iter().all(|sample| named.contains(&sample.shard)));
            prop_assert!(plan.shards.iter().all(|needed| case.sizes[needed.shard as usize] == needed.samples));
        }
    }
}

fn case(sizes: &[u32], window: usize) -> Case {
    Case { sizes: sizes.to_vec(), window, seed: 5, epochs: 1, last_batch: LastBatch::Keep }
}

#[test]
fn epochs_seeds_ranks_and_legs_have_different_orders() {
    let order = |seed, epoch| {
        let case = Case { seed, ..case(&[50, 50], 10) };
        let from = Cursor { epoch, legs: Vec::new() };
        samples(case.rest_of_epoch((1, 10), &from).first().into_iter().flatten())
    };
    assert_eq!(order(1, 0), order(1, 0));
    assert_ne!(order(1, 0), order(1, 1));
    assert_ne!(order(1, 0), order(2, 0));
    // Two ranks with one shard each, and two legs, have different orders within the shard.
    let places = |rank, from: &Cursor, ranks| -> Vec<u32> {
        let plans = case(&[400, 400], usize::MAX).plans(rank, ranks, from);
        let read = samples(&plans).into_iter();
        read.map(|sample| sample.sample).collect()
    };
    let start = Cursor::default();
    assert_ne!(places(0, &start, (2, 400)), places(1, &start, (2, 400)));
    let mut plans = case(&[400, 400], usize::MAX).plans(0, (2, 1), &start);
    let left = plans.swap_remove(0).cursor;
    assert_ne!(places(0, &start, (2, 1))[1..], places(0, &left, (2, 2)));
}

#[test]
fn every_order_of_a_window_is_equally_likely() {
    let mut counts = BTreeMap::new();
    let case = Case { epochs: 6_000, ..case(&[3], usize::MAX) };
    for plan in case.plans(0, (1, 3), &Cursor::default()) {
        // A cut within the samples, once in two thirds of 2^31 epochs, would show here too.
        let order: Vec<u32> = plan.samples.iter().map(|sample| sample.sample).collect();
        *counts.entry(order).or_insert(0u32) += 1;
    }
    // Six standard deviations: sqrt(6,000 * 1/6 * 5/6) = 29.
    assert_eq!(counts.len(), 6);
    assert!(counts.values().all(|count| count.abs_diff(1_000) < 174), "{counts:?}");
}

#[test]
fn a_leg_without_steps_is_ignored() {
    let case = case(&[9, 9], 4);
    let leg = |world_size, steps| Leg { world_size, batch_size: 2, steps };
    let cursor = |legs: &[Leg]| Cursor { epoch: 0, legs: legs.to_vec() };
    let plain = case.plans(0, (2, 2), &cursor(&[leg(3, 1)]));
    assert_eq!(plain, case.plans(0, (2, 2), &cursor(&[leg(3, 1), leg(5, 0), leg(2, 0)])));
    assert_eq!(plain[1..], case.plans(0, (2, 2), &cursor(&[leg(3, 1), leg(2, 1)])));
}

#[test]
fn an_endless_run_ends_if_there_is_nothing_to_read() {
    let rules = OrderSettings { num_epochs: None, ..case(&[1], 0).rules(0, (2, 4)) };
    let from = Cursor::default();
    assert_eq!(BatchPlans::new(rules.clone(), &from).next(&vec![1]).unwrap(), None);
    let mut endless = BatchPlans::new(OrderSettings { rank: 1, ..rules }, &from);
    let epochs = std::iter::from_fn(|| endless.next(&vec![1]).unwrap()).map(|plan| plan.epoch);
    assert_eq!(epochs.take(5).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}
