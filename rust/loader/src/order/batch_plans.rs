//! The batches of one rank in order, and the windows of samples that they will need.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::cursor::{Cursor, Leg};
use super::lengths::{Blocked, NeededShard, ShardLengths};
use super::rank_epoch::{RankEpoch, samples_read};
use super::settings::OrderSettings;
use super::streamed_epoch::StreamedEpoch;
use crate::rng::{SampleRng, stream};
use crate::shards::SampleId;

/// After this many epochs in a row without a sample, a run over shards of unknown lengths ends.
const EMPTY_EPOCHS: u32 = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    pub epoch: u64,
    /// Positions of its samples in the rank's part. A padded part continues from its beginning past its end.
    pub positions: Range<u64>,
    pub samples: Vec<SampleId>,
    /// The shards of the windows that the samples are in. They must be available, and substitutes are drawn from
    /// them.
    pub shards: Arc<[NeededShard]>,
    /// Where a run resumes after this batch.
    pub cursor: Cursor,
    rank: u64,
}

impl BatchPlan {
    /// Random numbers for one of its rows, independent of the sample in that row.
    pub fn rng(&self, seed: u64, slot: usize, purpose: u64) -> SampleRng {
        let leg = self.cursor.legs.len() as u64 - 1;
        let place = stream::of_leg(purpose, leg, self.rank);
        SampleRng::new(seed, self.epoch, self.positions.start + slot as u64, place)
    }
}

#[derive(Debug)]
struct Place {
    settings: OrderSettings,
    epoch: u64,
    earlier_legs: Vec<Leg>,
    /// Samples read so far: in the present leg if all lengths are known, otherwise in the epoch.
    position: u64,
    /// The position at which the present leg began.
    leg_start: u64,
    rank_epoch: Option<RankEpoch>,
    empty_epochs: u32,
}

impl Place {
    fn new(settings: OrderSettings, from: &Cursor) -> Self {
        let (earlier_legs, steps) = from.split(settings.world_size, settings.batch_size);
        let leg_start = if settings.streamed { samples_read(&earlier_legs) } else { 0 };
        Self {
            position: leg_start.saturating_add(steps.saturating_mul(settings.batch_size)),
            leg_start,
            epoch: from.epoch,
            settings,
            earlier_legs,
            rank_epoch: None,
            empty_epochs: 0,
        }
    }

    /// Moves to the next sample, into the next epoch if needed. Returns its position and its epoch, or `None` at the
    /// end of the run.
    fn advance(
        &mut self,
        lengths: &dyn ShardLengths,
    ) -> Result<Option<(u64, &mut RankEpoch)>, Blocked> {
        loop {
            let over = |epochs| self.epoch >= epochs;
            if self.settings.num_epochs.is_some_and(over) {
                return Ok(None);
            }
            let (settings, epoch, earlier_legs) = (&self.settings, self.epoch, &self.earlier_legs);
            let rank_epoch = self
                .rank_epoch
                .get_or_insert_with(|| RankEpoch::new(settings, lengths, epoch, earlier_legs));
            if rank_epoch.slice_at(self.position, lengths)?.is_some() {
                let position = self.position;
                self.empty_epochs = 0;
                return Ok(self.rank_epoch.as_mut().map(|rank_epoch| (position, rank_epoch)));
            }
            if self.position == 0 && self.earlier_legs.is_empty() {
                self.empty_epochs += 1;
                // Without this check an endless run would search forever. An empty part of known length stays empty. Parts of
                // unknown length differ between epochs.
                if !self.settings.streamed || self.empty_epochs == EMPTY_EPOCHS {
                    return Ok(None);
                }
            }
            (self.epoch, self.rank_epoch) = (self.epoch + 1, None);
            (self.position, self.leg_start) = (0, 0);
            self.earlier_legs.clear();
        }
    }
}

#[derive(Debug)]
pub struct BatchPlans(Place);

impl BatchPlans {
    pub fn new(settings: OrderSettings, from: &Cursor) -> Self {
        Self(Place::new(settings, from))
    }

    pub(crate) fn streamed(&self) -> Option<(u64, &StreamedEpoch)> {
        match &self.0.rank_epoch {
            Some(RankEpoch::Streamed(streamed)) => Some((self.0.epoch, streamed)),
            _ => None,
        }
    }

    /// Where the next batch begins: its epoch, and the position in it.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.0.epoch, self.0.position)
    }

    /// Returns the next plan, or `None` when the run is over.
    pub fn next(&mut self, lengths: &dyn ShardLengths) -> Result<Option<BatchPlan>, Blocked> {
        let OrderSettings { rank, world_size, batch_size, .. } = self.0.settings;
        let Some((position, rank_epoch)) = self.0.advance(lengths)? else {
            return Ok(None);
        };
        let mut samples = Vec::with_capacity(batch_size as usize);
        let mut shards: Option<Arc<[NeededShard]>> = None;
        while (samples.len() as u64) < batch_size {
            let at = position + samples.len() as u64;
            let Some(slice_at) = rank_epoch.slice_at(at, lengths)? else {
                break;
            };
            let count = slice_at.samples.len().min(batch_size as usize - samples.len());
            samples.extend_from_slice(&slice_at.samples[..count]);
            shards = Some(match shards {
                None => Arc::clone(slice_at.shards),
                Some(shards) => union(&shards, slice_at.shards),
            });
        }
        let positions = position..position + samples.len() as u64;
        self.0.position += batch_size;
        let epoch = self.0.epoch;
        let present = Leg {
            world_size,
            batch_size,
            steps: (self.0.position - self.0.leg_start) / batch_size,
        };
        let mut legs = self.0.earlier_legs.clone();
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

#[derive(Debug)]
pub struct UpcomingWindows(Place);

/// A window that a run will read.
#[derive(Debug)]
pub struct UpcomingWindow {
    pub epoch: u64,
    /// Position after its last sample, counted as in [`BatchPlan::positions`].
    pub until: u64,
    pub samples: u64,
    pub shards: Arc<[NeededShard]>,
}

impl UpcomingWindows {
    pub fn new(settings: OrderSettings, from: &Cursor) -> Self {
        Self(Place::new(settings, from))
    }

    pub fn next(&mut self, lengths: &dyn ShardLengths) -> Option<UpcomingWindow> {
        let (position, rank_epoch) = self.0.advance(lengths).ok()??;
        let slice_at = rank_epoch.slice_at(position, lengths).ok()??;
        let samples = slice_at.samples.len() as u64;
        let (until, shards) = (position + samples, Arc::clone(slice_at.shards));
        self.0.position = until;
        Some(UpcomingWindow { epoch: self.0.epoch, until, samples, shards })
    }
}

/// The shards of both lists without repeats, in order of first use.
fn union(first: &[NeededShard], second: &[NeededShard]) -> Arc<[NeededShard]> {
    let known: HashSet<u32> = first.iter().map(|needed| needed.shard).collect();
    let new = second.iter().filter(|needed| !known.contains(&needed.shard));
    first.iter().chain(new).copied().collect()
}
