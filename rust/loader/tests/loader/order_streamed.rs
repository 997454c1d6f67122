//! Epochs over shards of unknown length: the order does not depend on when a length becomes known.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prolip_loader::config::LastBatch;
use prolip_loader::error::Error;
use prolip_loader::order::{
    BatchPlan, BatchPlans, Blocked, Cursor, OrderSettings, ShardLengths, ShardSampler,
    WeightedShards,
};
use prolip_loader::shards::{SampleId, UNKNOWN_LENGTH};
use proptest::prelude::*;

/// Shards whose lengths become known one by one.
struct Told {
    counts: Vec<u32>,
    sizes: Vec<u32>,
    known: RefCell<BTreeSet<u32>>,
}

impl ShardLengths for Told {
    fn counts(&self) -> &[u32] {
        &self.counts
    }

    fn lookup(&self, shard: u32) -> Option<Result<u32, Error>> {
        let known = self.known.borrow().contains(&shard);
        known.then(|| Ok(self.sizes[shard as usize]))
    }
}

#[derive(Debug, Clone)]
struct Case {
    sizes: Vec<u32>,
    /// One in this many shards has a known length from the beginning.
    every: usize,
    window: usize,
    seed: u64,
    num_samples: u64,
    last_batch: LastBatch,
    drawn: bool,
}

impl Case {
    fn told(&self) -> Told {
        let unknown = |(place, &size)| {
            if place % self.every == 0 { size } else { UNKNOWN_LENGTH }
        };
        Told {
            counts: self.sizes.iter().enumerate().map(unknown).collect(),
            sizes: self.sizes.clone(),
            known: RefCell::default(),
        }
    }

    fn rules(&self, rank: u64, (world_size, batch_size): (u64, u64)) -> OrderSettings {
        let sampler = self.drawn.then(|| {
            let half = self.sizes.len() as u32 / 2;
            let source = |shards, weight| WeightedShards { shards, weight };
            let all = self.sizes.len() as u32;
            let sources =
                vec![source((0..half).collect(), 1.0), source((half..all).collect(), 2.0)];
            Arc::new(ShardSampler::new(sources, self.num_samples).unwrap())
        });
        OrderSettings {
            seed: self.seed,
            window: self.window,
            batch_size,
            native: None,
            rank,
            world_size,
            last_batch: self.last_batch,
            num_epochs: Some(2),
            streamed: true,
            num_samples: Some(self.num_samples),
            sampler,
        }
    }

    /// A rank's batches. A length becomes known when a batch waits for it, or with `eager` at the beginning.
    fn plans(&self, rank: u64, ranks: (u64, u64), from: &Cursor, eager: bool) -> Vec<BatchPlan> {
        let told = self.told();
        if eager {
            told.known.borrow_mut().extend(0..self.sizes.len() as u32);
        }
        let mut route = BatchPlans::new(self.rules(rank, ranks), from);
        let mut plans = Vec::new();
        loop {
            match route.next(&told) {
                Ok(Some(plan)) => plans.push(plan),
                Ok(None) => return plans,
                Err(Blocked::Waiting(shard)) => assert!(told.known.borrow_mut().insert(shard)),
                // This rank has no samples. Without an error the others would wait for it.
                Err(Blocked::Failed(Error::Config(error))) => {
                    assert_eq!(error.field, "shards");
                    assert_ne!(self.last_batch, LastBatch::Keep);
                    return plans;
                }
                Err(Blocked::Failed(error)) => panic!("{error}"),
            }
        }
    }

    fn part(&self, rank: u64, world_size: u64) -> Vec<SampleId> {
        let keep = Case { last_batch: LastBatch::Keep, drawn: false, ..self.clone() };
        let plans = keep.plans(rank, (world_size, 3), &Cursor::default(), true);
        samples(plans.iter().filter(|plan| plan.epoch == 0))
    }
}

fn samples<'plans>(plans: impl IntoIterator<Item = &'plans BatchPlan>) -> Vec<SampleId> {
    plans.into_iter().flat_map(|plan| plan.samples.clone()).collect()
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = prop::collection::vec(prop_oneof![Just(0u32), 1u32..12], 2..9);
    let windows = prop_oneof![Just(0usize), 1usize..20, Just(1_000_000)];
    let kinds = prop_oneof![Just(LastBatch::Drop), Just(LastBatch::Pad), Just(LastBatch::Keep)];
    (sizes, 2usize..9, windows, any::<u64>(), 1u64..90, kinds, any::<bool>())
        .prop_filter("a shard holds a sample", |case| case.0.iter().any(|&size| size > 0))
        .prop_map(|(sizes, every, window, seed, num_samples, last_batch, drawn)| Case {
            sizes,
            every,
            window,
            seed,
            num_samples,
            // Shards that are drawn never end.
            last_batch: if drawn && last_batch == LastBatch::Keep {
                LastBatch::Drop
            } else {
                last_batch
            },
            drawn,
        })
}

fn ranks() -> impl Strategy<Value = (u64, u64)> {
    (1u64..7, 1u64..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn every_sample_belongs_to_one_rank(case in cases(), world_size in 1u64..9) {
        let mut read: Vec<SampleId> = (0..world_size).flat_map(|rank| case.part(rank, world_size)).collect();
        read.sort_unstable();
        let shards = case.sizes.iter().zip(0..);
        let all: Vec<SampleId> = shards.flat_map(|(&size, shard)| (0..size).map(move |sample| SampleId { shard, sample })).collect();
        prop_assert_eq!(read, all);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_order_does_not_depend_on_when_lengths_become_known(case in cases(), ranks in ranks()) {
        for rank in 0..ranks.0 {
            let late = case.plans(rank, ranks, &Cursor::default(), false);
            prop_assert_eq!(&late, &case.plans(rank, ranks, &Cursor::default(), true));
            for plan in &late {
                let needed: BTreeMap<u32, u32> = plan.shards.iter().map(|needed| (needed.shard, needed.samples)).collect();
                prop_assert_eq!(needed.len(), plan.shards.len());
                prop_assert!(plan.samples.iter().all(|sample| sample.sample < needed[&sample.shard]));
                prop_assert!(needed.iter().all(|(&shard, &samples)| case.sizes[shard as usize] == samples));
            }
        }
    }

    #[test]
    fn ranks_take_equal_steps_and_cycle_through_their_shards(case in cases(), ranks in ranks()) {
        let last_batch = if case.last_batch == LastBatch::Drop { LastBatch::Drop } else { LastBatch::Pad };
        let case = Case { last_batch, drawn: false, ..case };
        let global = ranks.0 * ranks.1;
        let steps = if last_batch == LastBatch::Drop { case.num_samples / global } else { case.num_samples.div_ceil(global) };
        for rank in 0..ranks.0 {
            let mut plans = case.plans(rank, ranks, &Cursor::default(), false);
            plans.retain(|plan| plan.epoch == 0);
            let part = case.part(rank, ranks.0);
            if part.is_empty() {
                prop_assert!(plans.is_empty());
                continue;
            }
            prop_assert_eq!(plans.len() as u64, steps);
            prop_assert!(plans.iter().all(|plan| plan.samples.len() as u64 == ranks.1));
            let read = samples(&plans);
            // Within a padded rank's share, any two samples occur equally often, or one of them once more.
            let share = case.num_samples.div_ceil(ranks.0) as usize;
            if last_batch == LastBatch::Pad {
                let mut counts: BTreeMap<SampleId, usize> = part.iter().map(|&sample| (sample, 0)).collect();
                for sample in &read[..share] {
                    *counts.get_mut(sample).unwrap() += 1;
                }
                let rounds = share / part.len();
                prop_assert!(counts.values().all(|&count| count == rounds || count == rounds + 1));
            }
        }
    }
}
