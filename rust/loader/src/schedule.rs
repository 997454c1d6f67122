//! What is read next: the plan of the batches, and the shards that must be there before one is begun.

use std::collections::HashSet;
use std::sync::Arc;

use crate::loader::Loader;
use crate::order::{BatchPlan, Cursor, EpochOrder, Planner};
use crate::sample::SampleId;
use crate::supply::Supply;

/// A batch whose shards are there.
#[derive(Debug)]
pub(crate) struct Scheduled {
    pub plan: BatchPlan,
    /// The sample that belongs in each slot.
    pub samples: Vec<SampleId>,
    /// The shards that they lie in, in order of first use.
    pub shards: Vec<u32>,
}

/// What can be begun now.
#[derive(Debug)]
pub(crate) enum Upcoming {
    Batch(Scheduled),
    /// Shards of the next batch are on their way.
    Waiting,
    /// All batches were given.
    End,
}

/// The batches of a run in order. One thread has it at a time.
#[derive(Debug)]
pub(crate) struct Schedule {
    loader: Arc<Loader>,
    supply: Arc<dyn Supply>,
    planner: Planner,
    /// The order of the epoch that is being planned.
    order: Option<(u64, EpochOrder)>,
    /// A batch whose shards were announced and were not all there when it was last asked for.
    waiting: Option<Scheduled>,
}

impl Schedule {
    pub fn new(loader: Arc<Loader>, supply: Arc<dyn Supply>, from: Cursor) -> Self {
        let planner = Planner::new(loader.split, loader.config.num_epochs, from);
        Self {
            loader,
            supply,
            planner,
            order: None,
            waiting: None,
        }
    }

    /// The next batch, once its shards are there; until then every call asks for them again.
    pub fn next(&mut self) -> Upcoming {
        let scheduled = match self.waiting.take() {
            Some(scheduled) => scheduled,
            None => {
                let Some(plan) = self.planner.next() else {
                    return Upcoming::End;
                };
                let scheduled = self.locate(plan);
                self.supply.announce(&scheduled.shards);
                scheduled
            }
        };
        let mut shards = scheduled.shards.iter();
        if shards.all(|&shard| self.supply.is_ready(shard)) {
            return Upcoming::Batch(scheduled);
        }
        self.waiting = Some(scheduled);
        Upcoming::Waiting
    }

    fn locate(&mut self, plan: BatchPlan) -> Scheduled {
        let (config, index) = (&self.loader.config, &self.loader.index);
        let order = match &mut self.order {
            Some((epoch, order)) if *epoch == plan.epoch => order,
            old => {
                let order = EpochOrder::new(
                    index.counts(),
                    config.seed,
                    config.shuffle_window,
                    plan.epoch,
                );
                &mut old.insert((plan.epoch, order)).1
            }
        };
        let samples: Vec<SampleId> = plan
            .positions
            .clone()
            .map(|position| order.sample_at(position))
            .collect();
        let mut known = HashSet::new();
        let shards = samples.iter().map(|sample| sample.shard);
        Scheduled {
            shards: shards.filter(|&shard| known.insert(shard)).collect(),
            plan,
            samples,
        }
    }
}
