//! Properties of the sample order: each sample once, resumable anywhere, for any changes of the number of ranks.

use std::collections::BTreeMap;
use std::sync::Arc;

use prolip_loader::config::{LastBatch, NativeConfig};
use prolip_loader::order::{BatchPlan, BatchPlans, Cursor, OrderSettings};
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

type Ranks = (u64, u64);

impl Case {
    fn total(&self) -> u64 {
        self.sizes.iter().map(|&size| u64::from(size)).sum()
    }

    fn rules(&self, rank: u64, (world_size, batch_size): Ranks) -> OrderSettings {
        OrderSettings {
            seed: self.seed,
            window: self.window,
            batch_size,
            native: None,
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

    /// The rest of an epoch of native images on ranks that divide a budget of 24 patches and a divisor of 4 samples.
    fn native(&self, world_size: u64, from: &Cursor, streamed: bool) -> Vec<Vec<BatchPlan>> {
        let native = NativeConfig {
            patch_size: 1,
            seq_lens: vec![1, 2, 3, 5],
            seq_len_probs: vec![1.0, 2.0, 2.0, 2.0],
            token_budget: 24 / world_size,
            batch_divisor: 4 / world_size,
        };
        let rest = |rank| {
            let native = Some(Arc::new(native.clone()));
            let (num_epochs, num_samples) = (Some(from.epoch + 1), Some(self.total()));
            let rules = self.rules(rank, (world_size, 1));
            let rules = OrderSettings { native, streamed, num_epochs, num_samples, ..rules };
            let mut route = BatchPlans::new(rules, from);
            std::iter::from_fn(|| route.next(&self.sizes).unwrap()).collect()
        };
        (0..world_size).map(rest).collect()
    }

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
    #[test]
    fn native_epochs_take_the_same_steps_on_any_number_of_ranks(
        case in cases(), stays in prop::collection::vec((0u32..3, any::<Index>()), 1..4), epoch in 0u64..2
    ) {
        prop_assume!(case.last_batch != LastBatch::Keep);
        // Every rank has samples, also of shards of unknown length.
        let sizes = case.sizes.iter().map(|size| size + 4).collect();
        let case = Case { sizes, window: case.window.min(1 << 20), ..case };
        // The sequence lengths and the samples of all ranks of each step.
        let steps = |plans: &[Vec<BatchPlan>]| -> Vec<(u32, u64)> {
            let step = |plan: &BatchPlan| (plan.seq_len, (plan.samples.len() * plans.len()) as u64);
            plans[0].iter().map(step).collect()
        };
        let start = Cursor { epoch, legs: Vec::new() };
        let expected = steps(&case.native(1, &start, false));
        let (mut cursor, mut read, mut taken) = (start.clone(), Vec::new(), Vec::new());
        for (number, (ranks, stop)) in stays.iter().enumerate() {
            let plans = case.native(1 << ranks, &cursor, false);
            let left = steps(&plans);
            prop_assert!(plans.iter().all(|other| steps(std::slice::from_ref(other)).len() == left.len()));
            let count = if number + 1 == stays.len() { left.len() } else { stop.index(left.len() + 1) };
            taken.extend_from_slice(&left[..count]);
            read.extend(plans.iter().flat_map(|plans| samples(&plans[..count])));
            if count > 0 {
                cursor = plans[0][count - 1].cursor.clone();
            }
        }
        prop_assert_eq!(&taken, &expected);
        prop_assert_eq!(&steps(&case.native(1 << stays[0].0, &start, true)), &expected);
        let rows = |&(seq_len, rows)| [(1, 24), (2, 12), (3, 8), (5, 4)].contains(&(seq_len, rows));
        prop_assert!(expected.iter().all(rows));
        let (used, counts) = (read.len() as u64, counted(read));
        if case.last_batch == LastBatch::Drop {
            prop_assert!(counts.len() as u64 == used && case.total() - used < 24);
        } else {
            prop_assert_eq!(counts.len() as u64, case.total());
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
