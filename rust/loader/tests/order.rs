//! The laws of the order: each sample once, the same from anywhere, the same on any number of ranks.

#![allow(clippy::unwrap_used)]

use prolip_loader::config::LastBatch;
use prolip_loader::order::{BatchPlan, Cursor, EpochOrder, Planner, Split};
use prolip_loader::sample::SampleId;
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Case {
    sizes: Vec<u32>,
    window: usize,
    seed: u64,
    batch: u64,
    world: u64,
    epochs: u64,
}

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

    fn split(&self, rank: u64, last_batch: LastBatch) -> Split {
        Split {
            total: self.total(),
            batch_size: self.batch,
            rank,
            world_size: self.world,
            last_batch,
        }
    }

    fn plans(&self, rank: u64, last_batch: LastBatch, from: Cursor) -> Vec<BatchPlan> {
        Planner::new(self.split(rank, last_batch), Some(self.epochs), from).collect()
    }

    fn ids(&self, plan: &BatchPlan) -> Vec<SampleId> {
        let mut order = EpochOrder::new(&self.sizes, self.seed, self.window, plan.epoch);
        plan.positions
            .clone()
            .map(|position| order.sample_at(position))
            .collect()
    }

    /// What all ranks use at each step, with the step's cursor.
    fn steps(&self, last_batch: LastBatch, from: Cursor) -> Vec<(Cursor, Vec<SampleId>)> {
        let ranks: Vec<_> = (0..self.world)
            .map(|rank| self.plans(rank, last_batch, from))
            .collect();
        let steps = ranks.iter().map(Vec::len).max().unwrap_or(0);
        let step = |number: usize| {
            let plans: Vec<&BatchPlan> =
                ranks.iter().filter_map(|plans| plans.get(number)).collect();
            (
                plans[0].cursor,
                plans.iter().flat_map(|plan| self.ids(plan)).collect(),
            )
        };
        (0..steps).map(step).collect()
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = prop::collection::vec(0u32..12, 1..7);
    let windows = prop_oneof![Just(0usize), 1usize..20, Just(1_000_000), Just(usize::MAX)];
    (sizes, windows, any::<u64>(), 1u64..6, 1u64..6, 1u64..4).prop_map(
        |(sizes, window, seed, batch, world, epochs)| Case {
            sizes,
            window,
            seed,
            batch,
            world,
            epochs,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_position_is_another_sample(case in cases(), epoch in 0u64..5) {
        let mut order = EpochOrder::new(&case.sizes, case.seed, case.window, epoch);
        let mut ids: Vec<SampleId> = (0..case.total()).map(|position| order.sample_at(position)).collect();
        // Asked for backwards, and each alone, they are the same.
        for position in (0..case.total()).rev() {
            prop_assert_eq!(order.sample_at(position), ids[position as usize]);
        }
        if case.window == 0 {
            prop_assert!(ids.is_sorted());
        }
        ids.sort_unstable();
        prop_assert_eq!(ids, case.all());
    }

    #[test]
    fn an_evaluation_sees_each_sample_once_an_epoch(case in cases()) {
        let ranks = (0..case.world).flat_map(|rank| case.plans(rank, LastBatch::Keep, Cursor::default()));
        let plans: Vec<BatchPlan> = ranks.collect();
        for epoch in 0..case.epochs {
            let used = plans.iter().filter(|plan| plan.epoch == epoch);
            let mut ids: Vec<SampleId> = used.flat_map(|plan| case.ids(plan)).collect();
            ids.sort_unstable();
            if case.total() >= case.world {
                prop_assert_eq!(ids, case.all());
            }
        }
        for rank in 0..case.world {
            let split = case.split(rank, LastBatch::Keep);
            prop_assert!(split.num_batches(0).abs_diff(case.split(0, LastBatch::Keep).num_batches(0)) <= 1);
        }
    }

    #[test]
    fn training_uses_no_sample_twice_an_epoch_in_as_many_steps_on_every_rank(case in cases()) {
        let global = case.batch * case.world;
        let ranks: Vec<usize> =
            (0..case.world).map(|rank| case.plans(rank, LastBatch::Drop, Cursor::default()).len()).collect();
        prop_assert!(ranks.iter().all(|&steps| steps as u64 == case.epochs * (case.total() / global)));
        let steps = case.steps(LastBatch::Drop, Cursor::default());
        for epoch in 0..case.epochs {
            let used = steps.iter().filter(|(cursor, _)| cursor.epoch == epoch);
            let mut ids: Vec<SampleId> = used.flat_map(|(_, ids)| ids.clone()).collect();
            let count = ids.len() as u64;
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len() as u64, count);
            prop_assert_eq!(count, case.total() / global * global);
        }
    }

    #[test]
    fn a_resumed_run_goes_on_as_if_it_had_never_stopped(case in cases(), at in any::<prop::sample::Index>(), keep in any::<bool>()) {
        let last_batch = if keep { LastBatch::Keep } else { LastBatch::Drop };
        for rank in 0..case.world {
            let whole = case.plans(rank, last_batch, Cursor::default());
            if whole.is_empty() {
                continue;
            }
            let stop = at.index(whole.len());
            prop_assert_eq!(&whole[stop + 1..], &case.plans(rank, last_batch, whole[stop].cursor)[..]);
        }
    }

    #[test]
    fn the_number_of_ranks_changes_no_global_batch(case in cases(), parts in 1u64..6) {
        // The same global batch on one rank, and in `parts` parts.
        let global = case.batch * parts;
        let one = Case { batch: global, world: 1, ..case.clone() };
        let many = Case { batch: case.batch, world: parts, ..case };
        prop_assert_eq!(
            one.steps(LastBatch::Drop, Cursor::default()),
            many.steps(LastBatch::Drop, Cursor::default())
        );
    }

    #[test]
    fn after_a_change_of_ranks_no_sample_of_the_epoch_comes_again(
        case in cases(), world in 1u64..6, batch in 1u64..6, at in any::<prop::sample::Index>()
    ) {
        let case = Case { epochs: 1, ..case };
        let before = case.steps(LastBatch::Drop, Cursor::default());
        if before.is_empty() {
            return Ok(());
        }
        let stop = at.index(before.len());
        let other = Case { world, batch, ..case.clone() };
        let after = other.steps(LastBatch::Drop, before[stop].0);
        let mut ids: Vec<SampleId> = before[..=stop].iter().chain(&after).flat_map(|(_, ids)| ids.clone()).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), count);
        prop_assert!(case.total() - (count as u64) < world * batch);
    }
}

#[test]
fn epochs_and_seeds_differ() {
    let order = |seed, epoch| -> Vec<SampleId> {
        let mut order = EpochOrder::new(&[50, 50], seed, 10, epoch);
        (0..100).map(|position| order.sample_at(position)).collect()
    };
    assert_eq!(order(1, 0), order(1, 0));
    assert_ne!(order(1, 0), order(1, 1));
    assert_ne!(order(1, 0), order(2, 0));
}

#[test]
fn an_endless_run_ends_where_there_is_nothing_to_read() {
    let split = Split {
        total: 1,
        batch_size: 4,
        rank: 0,
        world_size: 2,
        last_batch: LastBatch::Keep,
    };
    assert_eq!(Planner::new(split, None, Cursor::default()).next(), None);
    let endless = Planner::new(Split { rank: 1, ..split }, None, Cursor::default());
    assert_eq!(
        endless.take(5).map(|plan| plan.epoch).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4]
    );
}
