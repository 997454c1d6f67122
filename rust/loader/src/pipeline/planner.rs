//! Plans the batches of a run in order, and waits for the shards of each.

use std::sync::Arc;
use std::task::Poll;

use super::dataset::Dataset;
use super::lookahead::{KnownLengths, Lookahead};
use crate::error::Error;
use crate::order::{BatchPlan, BatchPlans, Blocked, Cursor};
use crate::remote::ShardProvider;

pub(crate) struct Planner {
    plans: BatchPlans,
    known: KnownLengths,
    waiting: Option<BatchPlan>,
    /// `None` if all shards are local.
    lookahead: Option<Lookahead>,
}

impl Planner {
    pub fn new(
        dataset: Arc<Dataset>,
        provider: Option<Arc<dyn ShardProvider>>,
        from: &Cursor,
    ) -> Self {
        let order = dataset.order.clone();
        let ahead = provider.clone();
        let lookahead = ahead.map(|provider| Lookahead::new(provider, &order, from));
        Self {
            plans: BatchPlans::new(order, from),
            known: KnownLengths { dataset, provider },
            waiting: None,
            lookahead,
        }
    }

    /// The next batch once its shards are ready; `None` when all are planned. Each call asks for its shards again. All batches
    /// before number `unfinished` are finished.
    pub fn next(&mut self, unfinished: u64) -> Poll<Result<Option<BatchPlan>, Error>> {
        let known = &self.known;
        let mut missing = None;
        if self.waiting.is_none() {
            match self.plans.next(known) {
                Ok(Some(plan)) => self.waiting = Some(plan),
                Ok(None) => return Poll::Ready(Ok(None)),
                Err(Blocked::Waiting(shard)) => missing = Some(shard),
                Err(Blocked::Failed(error)) => return Poll::Ready(Err(error)),
            }
        }
        if let Some(lookahead) = &mut self.lookahead {
            let streamed = self.plans.streamed();
            let planned = self.waiting.as_ref();
            let next = planned.map(|plan| (plan.epoch, plan.positions.start));
            lookahead.release_unneeded(unfinished, next.unwrap_or(self.plans.place()), streamed);
            match (streamed, &self.waiting) {
                (Some((epoch, streamed)), _) => {
                    lookahead.request_pieces(epoch, streamed, &known.dataset)
                }
                (None, Some(plan)) => lookahead.request_windows(plan, known),
                (None, None) => {}
            }
            if let Some(shard) = missing {
                // Shows the provider that a batch waits for this shard.
                lookahead.provider.is_ready(shard);
            }
            if let Some(plan) = &self.waiting {
                if !lookahead.all_ready(&plan.shards) {
                    return Poll::Pending;
                }
                lookahead.begin(plan);
            }
        }
        match self.waiting.take() {
            None => Poll::Pending,
            plan => Poll::Ready(Ok(plan)),
        }
    }
}
