//! What is read next: the batches in order, and the shards that are asked for ahead of them and given back behind them.

use std::sync::Arc;

use super::dataset::Loader;
use super::lookahead::{Claims, Known};
use crate::error::Error;
use crate::order::{BatchPlan, Cursor, Route, Step};
use crate::remote::ShardProvider;

/// What can be begun now.
#[derive(Debug)]
pub(crate) enum Upcoming {
    Batch(BatchPlan),
    /// Shards of the next batch are on their way.
    Waiting,
    /// All batches were given.
    End,
    /// The next one cannot be made.
    Failed(Error),
}

/// The batches of a run in order. One thread has it at a time.
#[derive(Debug)]
pub(crate) struct Schedule {
    loader: Arc<Loader>,
    route: Route,
    /// A batch whose shards were not all there when it was last asked for.
    waiting: Option<BatchPlan>,
    /// Absent where every shard is always there.
    claims: Option<Claims>,
}

impl Schedule {
    pub fn new(loader: Arc<Loader>, provider: Arc<dyn ShardProvider>, from: &Cursor) -> Self {
        let rules = loader.rules.clone();
        let claims = (!provider.is_local()).then(|| Claims::new(provider, &rules, from));
        Self {
            route: Route::new(rules, from),
            loader,
            waiting: None,
            claims,
        }
    }

    /// The next batch, once its shards are there; until then every call asks for them again. All batches before number
    /// `unfinished` are finished.
    pub fn next(&mut self, unfinished: u64) -> Upcoming {
        let known = Known {
            loader: &self.loader,
            provider: self
                .claims
                .as_ref()
                .map(|claims| Arc::clone(&claims.provider)),
        };
        let mut missing = None;
        if self.waiting.is_none() {
            match self.route.next(&known) {
                Ok(Step::Batch(plan)) => self.waiting = Some(plan),
                Ok(Step::Waiting(shard)) => missing = Some(shard),
                Ok(Step::End) => return Upcoming::End,
                Err(error) => return Upcoming::Failed(error),
            }
        }
        if let Some(claims) = &mut self.claims {
            let streamed = self.route.streamed();
            let planned = self.waiting.as_ref();
            let next = planned.map(|plan| (plan.epoch, plan.positions.start));
            claims.give_back(unfinished, next.unwrap_or(self.route.place()), streamed);
            match (streamed, &self.waiting) {
                (Some((epoch, streamed)), _) => {
                    claims.ask_for_pieces(epoch, streamed, &self.loader)
                }
                (None, Some(plan)) => claims.ask_for_windows(plan, &known),
                (None, None) => {}
            }
            if let Some(shard) = missing {
                // Asking tells the provider that a batch waits for it.
                claims.provider.is_ready(shard);
            }
            if let Some(plan) = &self.waiting {
                if !claims.are_there(&plan.shards) {
                    return Upcoming::Waiting;
                }
                claims.begin(plan);
            }
        }
        self.waiting
            .take()
            .map_or(Upcoming::Waiting, Upcoming::Batch)
    }
}
