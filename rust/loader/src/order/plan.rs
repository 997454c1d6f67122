//! The batches of one rank, one after the other, and the shards that they will need.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::cursor::{Cursor, Leg};
use super::lengths::{Blocked, Lengths, Needed};
use super::rank_epoch::{Reading, begun};
use super::rules::Rules;
use super::unknown_lengths::Streamed;
use crate::error::Error;
use crate::rng::{SampleRng, stream};
use crate::shards::SampleId;

/// One batch to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    /// Its epoch.
    pub epoch: u64,
    /// Its positions in what the rank reads of the present leg; past its end a padded part goes on from its beginning.
    pub positions: Range<u64>,
    /// The sample that belongs in each slot.
    pub samples: Vec<SampleId>,
    /// The shards of the windows that they stand in: those that must be there, and that substitutes come from.
    pub shards: Arc<[Needed]>,
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

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A batch.
    Batch(BatchPlan),
    /// The number of samples in this shard must be known first.
    Waiting(u32),
    /// There are no more.
    End,
}

/// A place in a run, and what is read from there.
#[derive(Debug)]
struct Walk {
    rules: Rules,
    epoch: u64,
    /// The epoch's legs before the present one.
    earlier: Vec<Leg>,
    /// What was read of the epoch; of the present leg, where lengths are known.
    position: u64,
    reading: Option<Reading>,
}

impl Walk {
    fn new(rules: Rules, from: &Cursor) -> Self {
        let (earlier, steps) = from.split(rules.world_size, rules.batch_size);
        let before = if rules.streamed { begun(&earlier) } else { 0 };
        Self {
            position: before.saturating_add(steps.saturating_mul(rules.batch_size)),
            epoch: from.epoch,
            rules,
            earlier,
            reading: None,
        }
    }

    /// The next sample's position and what is read of its epoch; nothing at the end of the run.
    fn settle(&mut self, lengths: &dyn Lengths) -> Result<Option<(u64, &mut Reading)>, Blocked> {
        loop {
            let over = |epochs| self.epoch >= epochs;
            if self.rules.num_epochs.is_some_and(over) {
                return Ok(None);
            }
            let (rules, epoch, earlier) = (&self.rules, self.epoch, &self.earlier);
            let reading = self
                .reading
                .get_or_insert_with(|| Reading::new(rules, lengths, epoch, earlier));
            if reading.stretch(self.position, lengths)?.is_some() {
                let position = self.position;
                return Ok(self.reading.as_mut().map(|reading| (position, reading)));
            }
            // An epoch without samples never gets any: without this an endless run would search forever.
            if self.position == 0 && self.earlier.is_empty() {
                return Ok(None);
            }
            (self.epoch, self.position, self.reading) = (self.epoch + 1, 0, None);
            self.earlier.clear();
        }
    }
}

/// The batches of a run, one after the other.
#[derive(Debug)]
pub struct Route {
    walk: Walk,
    /// The epoch of the last batch, and the steps of its leg.
    steps: (u64, u64),
}

impl Route {
    /// The batches from a cursor on.
    #[must_use]
    pub fn new(rules: Rules, from: &Cursor) -> Self {
        let (_, steps) = from.split(rules.world_size, rules.batch_size);
        Self {
            walk: Walk::new(rules, from),
            steps: (from.epoch, steps),
        }
    }

    /// The next batch.
    ///
    /// # Errors
    /// The length of a shard that is needed for it will never be known.
    pub fn next(&mut self, lengths: &dyn Lengths) -> Result<Step, Error> {
        match self.plan(lengths) {
            Ok(Some(plan)) => Ok(Step::Batch(plan)),
            Ok(None) => Ok(Step::End),
            Err(Blocked::Waiting(shard)) => Ok(Step::Waiting(shard)),
            Err(Blocked::Failed(error)) => Err(error),
        }
    }

    /// Place and reading of an epoch whose lengths turn out on the way.
    pub(crate) fn streamed(&self) -> Option<(u64, &Streamed)> {
        match &self.walk.reading {
            Some(Reading::Streamed(streamed)) => Some((self.walk.epoch, streamed)),
            _ => None,
        }
    }

    /// Where the next batch begins: its epoch, and what was read of that.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.walk.epoch, self.walk.position)
    }

    fn plan(&mut self, lengths: &dyn Lengths) -> Result<Option<BatchPlan>, Blocked> {
        let Rules {
            rank,
            world_size,
            batch_size,
            ..
        } = self.walk.rules;
        let Some((position, reading)) = self.walk.settle(lengths)? else {
            return Ok(None);
        };
        let mut samples = Vec::with_capacity(batch_size as usize);
        let mut shards: Option<Arc<[Needed]>> = None;
        while (samples.len() as u64) < batch_size {
            let at = position + samples.len() as u64;
            let Some(stretch) = reading.stretch(at, lengths)? else {
                break;
            };
            let count = stretch
                .samples
                .len()
                .min(batch_size as usize - samples.len());
            samples.extend_from_slice(&stretch.samples[..count]);
            shards = Some(match shards {
                None => Arc::clone(stretch.shards),
                Some(shards) => united(&shards, stretch.shards),
            });
        }
        let positions = position..position + samples.len() as u64;
        self.walk.position += batch_size;
        let epoch = self.walk.epoch;
        let steps = if self.steps.0 == epoch {
            self.steps.1 + 1
        } else {
            1
        };
        self.steps = (epoch, steps);
        let present = Leg {
            world_size,
            batch_size,
            steps,
        };
        let mut legs = self.walk.earlier.clone();
        legs.push(present);
        Ok(Some(BatchPlan {
            epoch,
            positions,
            samples,
            shards: shards.unwrap_or_default(),
            cursor: Cursor { epoch, legs },
            rank,
        }))
    }
}

/// What is read together, one after the other: the windows of a run over shards of known lengths.
#[derive(Debug)]
pub struct Scout(Walk);

/// A window that a run will read.
#[derive(Debug)]
pub struct Visit {
    /// Its epoch.
    pub epoch: u64,
    /// Position behind its last sample, as [`BatchPlan::positions`] counts.
    pub until: u64,
    /// Its samples.
    pub samples: u64,
    /// Shards that it needs.
    pub shards: Arc<[Needed]>,
}

impl Scout {
    /// The windows from a cursor on.
    #[must_use]
    pub fn new(rules: Rules, from: &Cursor) -> Self {
        Self(Walk::new(rules, from))
    }

    /// The next one.
    pub fn next(&mut self, lengths: &dyn Lengths) -> Option<Visit> {
        let (position, reading) = self.0.settle(lengths).ok()??;
        let stretch = reading.stretch(position, lengths).ok()??;
        let samples = stretch.samples.len() as u64;
        let (until, shards) = (position + samples, Arc::clone(stretch.shards));
        self.0.position = until;
        Some(Visit {
            epoch: self.0.epoch,
            until,
            samples,
            shards,
        })
    }
}

/// What is in either, in order of first use.
fn united(first: &[Needed], second: &[Needed]) -> Arc<[Needed]> {
    let known: HashSet<u32> = first.iter().map(|needed| needed.shard).collect();
    let new = second
        .iter()
        .filter(|needed| !known.contains(&needed.shard));
    first.iter().chain(new).copied().collect()
}
