//! What is read next: the plan of the batches, and the shards that must be there before one is begun.

use std::sync::Arc;

use crate::loader::Loader;
use crate::order::{BatchPlan, Cursor, Route};
use crate::supply::Supply;

/// What can be begun now.
#[derive(Debug)]
pub(crate) enum Upcoming {
    Batch(BatchPlan),
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
    route: Route,
    /// A batch whose shards were announced and were not all there when it was last asked for.
    waiting: Option<BatchPlan>,
}

impl Schedule {
    pub fn new(loader: Arc<Loader>, supply: Arc<dyn Supply>, from: &Cursor) -> Self {
        let route = Route::new(loader.rules.clone(), from);
        Self {
            loader,
            supply,
            route,
            waiting: None,
        }
    }

    /// The next batch, once its shards are there; until then every call asks for them again.
    pub fn next(&mut self) -> Upcoming {
        let plan = match self.waiting.take() {
            Some(plan) => plan,
            None => {
                let Some(plan) = self.route.next(self.loader.index.counts()) else {
                    return Upcoming::End;
                };
                self.supply.announce(&plan.shards);
                plan
            }
        };
        let mut shards = plan.shards.iter();
        if shards.all(|&shard| self.supply.is_ready(shard)) {
            return Upcoming::Batch(plan);
        }
        self.waiting = Some(plan);
        Upcoming::Waiting
    }
}
