//! Plans the batches of a run in order, and waits for the shards of each.

use std::sync::Arc;

use super::dataset::Dataset;
use super::lookahead::{KnownLengths, Lookahead};
use crate::error::Error;
use crate::order::{BatchPlan, BatchPlans, Cursor, NextBatch};
use crate::remote::ShardProvider;

/// What can be started now.
#[derive(Debug)]
pub(crate) enum Upcoming {
    Batch(BatchPlan),
    /// The shards of the next batch are still being downloaded.
    Waiting,
    /// All batches have been planned.
    End,
    /// The next batch cannot be planned.
    Failed(Error),
}

/// The planned batches of a run, in order. Only one thread holds it at a time.
#[derive(Debug)]
pub(crate) struct Planner {
    dataset: Arc<Dataset>,
    plans: BatchPlans,
    /// A planned batch whose shards were not all ready.
    waiting: Option<BatchPlan>,
    /// `None` if all shards are local.
    lookahead: Option<Lookahead>,
}

impl Planner {
    pub fn new(dataset: Arc<Dataset>, provider: Arc<dyn ShardProvider>, from: &Cursor) -> Self {
        let order = dataset.order.clone();
        let lookahead = (!provider.is_local()).then(|| Lookahead::new(provider, &order, from));
        Self {
            plans: BatchPlans::new(order, from),
            dataset,
            waiting: None,
            lookahead,
        }
    }

    /// Returns the next batch once its shards are ready. Until then every call asks for them again. All batches
    /// before number `unfinished` are finished.
    pub fn next(&mut self, unfinished: u64) -> Upcoming {
        let known = KnownLengths {
            dataset: &self.dataset,
            provider: self
                .lookahead
                .as_ref()
                .map(|lookahead| Arc::clone(&lookahead.provider)),
        };
        let mut missing = None;
        if self.waiting.is_none() {
            match self.plans.next(&known) {
                Ok(NextBatch::Batch(plan)) => self.waiting = Some(plan),
                Ok(NextBatch::Waiting(shard)) => missing = Some(shard),
                Ok(NextBatch::End) => return Upcoming::End,
                Err(error) => return Upcoming::Failed(error),
            }
        }
        if let Some(lookahead) = &mut self.lookahead {
            let streamed = self.plans.streamed();
            let planned = self.waiting.as_ref();
            let next = planned.map(|plan| (plan.epoch, plan.positions.start));
            lookahead.release_unneeded(unfinished, next.unwrap_or(self.plans.place()), streamed);
            match (streamed, &self.waiting) {
                (Some((epoch, streamed)), _) => {
                    lookahead.request_pieces(epoch, streamed, &self.dataset)
                }
                (None, Some(plan)) => lookahead.request_windows(plan, &known),
                (None, None) => {}
            }
            if let Some(shard) = missing {
                // Asking tells the provider that a batch waits for this shard.
                lookahead.provider.is_ready(shard);
            }
            if let Some(plan) = &self.waiting {
                if !lookahead.all_ready(&plan.shards) {
                    return Upcoming::Waiting;
                }
                lookahead.begin(plan);
            }
        }
        self.waiting
            .take()
            .map_or(Upcoming::Waiting, Upcoming::Batch)
    }
}
