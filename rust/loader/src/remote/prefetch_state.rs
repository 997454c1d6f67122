//! Which shards a run has announced, the state of each, and how much disk they take.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::meter::Meter;
use super::provider::ReadyShard;
use crate::error::FetchError;

#[derive(Default)]
pub(super) struct State {
    pub shards: HashMap<u32, ShardState>,
    pub queue: VecDeque<u32>,
    /// Queued shards that a batch waits for. They are fetched regardless of the disk limit.
    pub wanted: BTreeSet<u32>,
    pub lengths: HashMap<u32, u64>,
    /// Of shards that were fetched before.
    pub sizes: HashMap<u32, u64>,
    /// The largest shard so far: the estimate for unknown sizes.
    pub largest: u64,
}

pub(super) enum ShardState {
    Queued,
    Fetching { meter: Arc<Meter>, task: AbortHandle },
    Here { meter: Arc<Meter>, lent: ReadyShard },
    Failed(FetchError),
}

pub(super) fn end(held: Option<ShardState>) {
    if let Some(ShardState::Fetching { meter, task, .. }) = held {
        meter.call_off();
        task.abort();
    }
}

impl State {
    pub fn queue(&mut self, shard: u32) {
        if let Entry::Vacant(place) = self.shards.entry(shard) {
            place.insert(ShardState::Queued);
            self.queue.push_back(shard);
        }
    }

    pub fn forget(&mut self, shard: u32) {
        self.queue.retain(|&queued| queued != shard);
        self.wanted.remove(&shard);
    }

    /// Bytes on disk or expected.
    pub fn bytes(&self) -> u64 {
        let meters = self.shards.values().filter_map(|held| match held {
            ShardState::Fetching { meter, .. } | ShardState::Here { meter, .. } => Some(meter),
            ShardState::Queued | ShardState::Failed(_) => None,
        });
        meters.fold(0, |sum, meter| sum.saturating_add(meter.bytes()))
    }
}
