//! The batches of one rank, one after the other.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::{Cursor, Division, Draws, EpochOrder, Leg, ShardList};
use crate::config::LastBatch;
use crate::rng::{SampleRng, stream};
use crate::sample::SampleId;

/// What the order of a run is a function of, besides the numbers of samples in its shards.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Seed of every draw.
    pub seed: u64,
    /// Samples that are shuffled together; 0 keeps the order of the files.
    pub window: usize,
    /// Samples of one rank's batch.
    pub batch_size: u64,
    /// This rank.
    pub rank: u64,
    /// Number of ranks.
    pub world_size: u64,
    /// What becomes of the samples that do not fill a last batch.
    pub last_batch: LastBatch,
    /// Epochs, `None` for no end.
    pub num_epochs: Option<u64>,
    /// Shards that are drawn with replacement; nothing where each is read once an epoch.
    pub draws: Option<Arc<Draws>>,
}

impl Rules {
    /// How an epoch of `total` samples is divided at its beginning.
    #[must_use]
    pub fn division(&self, total: u64) -> Division {
        Division {
            total,
            world_size: self.world_size,
            batch_size: self.batch_size,
        }
    }

    /// Samples of an epoch over shards of these numbers of samples.
    #[must_use]
    pub fn num_samples(&self, counts: &[u32]) -> u64 {
        match &self.draws {
            Some(draws) => draws.num_samples,
            None => counts.iter().map(|&count| u64::from(count)).sum(),
        }
    }

    /// The list of an epoch over shards of these numbers of samples.
    #[must_use]
    pub fn list(&self, counts: &[u32], epoch: u64) -> ShardList {
        let key = (self.seed, epoch);
        match &self.draws {
            Some(draws) => ShardList::drawn(counts, draws, key),
            None => ShardList::once(counts, (self.window > 0).then_some(key)),
        }
    }

    /// The order of what some legs left of an epoch.
    #[must_use]
    pub fn order(&self, counts: &[u32], epoch: u64, earlier: &[Leg]) -> EpochOrder {
        EpochOrder::new(
            self.list(counts, epoch),
            (self.seed, epoch),
            self.window,
            earlier,
            (self.world_size, self.batch_size),
        )
    }
}

/// One batch to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    /// Its epoch.
    pub epoch: u64,
    /// Its positions in the rank's part of the present leg; a padded part goes on from its beginning.
    pub positions: Range<u64>,
    /// The sample that belongs in each slot.
    pub samples: Vec<SampleId>,
    /// The shards of the windows that they stand in: those that must be there, and that substitutes come from.
    pub shards: Arc<[u32]>,
    /// Where a run goes on after it.
    pub cursor: Cursor,
    rank: u64,
}

impl BatchPlan {
    /// A generator for something that belongs to one of its slots and not to the sample there.
    #[must_use]
    pub fn rng(&self, seed: u64, slot: usize, purpose: u64) -> SampleRng {
        let leg = self.cursor.legs.len() as u64 - 1;
        let place = stream::of_leg(purpose, leg, self.rank);
        SampleRng::new(seed, self.epoch, self.positions.start + slot as u64, place)
    }
}

/// The batches of a run, one after the other.
#[derive(Debug)]
pub struct Route {
    rules: Rules,
    epoch: u64,
    /// The epoch's legs before the present one.
    earlier: Vec<Leg>,
    /// Steps taken in the present one.
    steps: u64,
    /// The epoch's order, once it was needed.
    order: Option<EpochOrder>,
}

impl Route {
    /// The batches from a cursor on.
    #[must_use]
    pub fn new(rules: Rules, from: &Cursor) -> Self {
        let (earlier, steps) = from.split(rules.world_size, rules.batch_size);
        Self {
            rules,
            epoch: from.epoch,
            earlier,
            steps,
            order: None,
        }
    }

    /// The next batch from shards of these numbers of samples, which must be the same at every call.
    pub fn next(&mut self, counts: &[u32]) -> Option<BatchPlan> {
        loop {
            let Rules {
                rank, last_batch, ..
            } = self.rules;
            if self
                .rules
                .num_epochs
                .is_some_and(|epochs| self.epoch >= epochs)
            {
                return None;
            }
            let (epoch, earlier) = (self.epoch, &self.earlier);
            let order = self
                .order
                .get_or_insert_with(|| self.rules.order(counts, epoch, earlier));
            let steps = order.division().num_steps(last_batch, rank);
            if self.steps < steps {
                return self.plan();
            }
            // An epoch without batches never gets any: without this an endless run would search forever.
            if steps == 0 && self.earlier.is_empty() {
                return None;
            }
            (self.epoch, self.steps, self.order) = (self.epoch + 1, 0, None);
            self.earlier.clear();
        }
    }

    fn plan(&mut self) -> Option<BatchPlan> {
        let Rules {
            rank,
            world_size,
            batch_size,
            last_batch,
            ..
        } = self.rules;
        let order = self.order.as_mut()?;
        let division = order.division();
        let owner = division.owner(rank);
        let length = division.length(owner);
        let mut positions = self.steps * batch_size..(self.steps + 1) * batch_size;
        if last_batch == LastBatch::Keep {
            positions.end = positions.end.min(length);
        }
        let mut samples = Vec::with_capacity((positions.end - positions.start) as usize);
        let mut shards: Option<Arc<[u32]>> = None;
        let mut at = positions.start;
        while at < positions.end {
            // Past its end a part is read from its beginning again.
            let place = at % length;
            let window = order.window(owner, place);
            let count = (window.positions.end - place).min(positions.end - at);
            let first = (place - window.positions.start) as usize;
            samples.extend_from_slice(&window.samples[first..first + count as usize]);
            shards = Some(match shards {
                None => Arc::clone(&window.shards),
                Some(shards) => united(&shards, &window.shards),
            });
            at += count;
        }
        self.steps += 1;
        let present = Leg {
            world_size,
            batch_size,
            steps: self.steps,
        };
        let mut legs = self.earlier.clone();
        legs.push(present);
        Some(BatchPlan {
            epoch: self.epoch,
            positions,
            samples,
            shards: shards.unwrap_or_default(),
            cursor: Cursor {
                epoch: self.epoch,
                legs,
            },
            rank,
        })
    }
}

/// What is in either, in order of first use.
fn united(first: &[u32], second: &[u32]) -> Arc<[u32]> {
    let known: HashSet<&u32> = first.iter().collect();
    let new = second.iter().filter(|shard| !known.contains(shard));
    first.iter().chain(new).copied().collect()
}
