//! The batches of one rank in order, and the windows of samples that they need.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::cursor::{Cursor, Leg};
use super::rank_epoch::{RankEpoch, samples_read};
use super::shard_lengths::{Blocked, NeededShard, ShardLengths};
use super::steps::OrderSettings;
use super::streamed_epoch::StreamedEpoch;
use crate::rng::{SampleRng, stream};
use crate::shards::SampleId;

/// A run over shards of unknown lengths ends after this many epochs in a row without a sample.
const EMPTY_EPOCHS: u32 = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    pub epoch: u64,
    /// Positions of its samples in the rank's part. A padded part continues from its beginning past its end.
    pub positions: Range<u64>,
    pub samples: Vec<SampleId>,
    /// 0 for square images.
    pub seq_len: u32,
    /// The shards of its samples' windows: they must be available, and substitutes are drawn from them.
    pub shards: Arc<[NeededShard]>,
    pub cursor: Cursor,
    rank: u64,
}

impl BatchPlan {
    /// With padding; a square image counts as one.
    pub fn row_patches(&self) -> usize {
        self.seq_len.max(1) as usize
    }

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

    /// Samples of the epoch that all ranks have read.
    fn samples_read(&self) -> u64 {
        let samples =
            |leg: &Leg| leg.world_size.saturating_mul(leg.batch_size).saturating_mul(leg.steps);
        let earlier = self.earlier_legs.iter().map(samples).fold(0, u64::saturating_add);
        let present = (self.position - self.leg_start).saturating_mul(self.settings.world_size);
        earlier.saturating_add(present)
    }

    /// Moves to the next sample, into the next epoch if needed; `false` at the end of the run.
    fn advance(&mut self, lengths: &dyn ShardLengths) -> Result<bool, Blocked> {
        loop {
            let over = |epochs| self.epoch >= epochs;
            if self.settings.num_epochs.is_some_and(over) {
                return Ok(false);
            }
            let place = (self.position, self.samples_read());
            let (settings, epoch, earlier_legs) = (&self.settings, self.epoch, &self.earlier_legs);
            let new = || RankEpoch::new(settings, lengths, epoch, earlier_legs, place);
            let rank_epoch = self.rank_epoch.get_or_insert_with(new);
            if rank_epoch.slice_at(self.position, lengths)?.is_some() {
                self.empty_epochs = 0;
                return Ok(true);
            }
            if self.position == 0 && self.earlier_legs.is_empty() {
                self.empty_epochs += 1;
                // An empty part of known length stays empty; one of unknown length differs between epochs.
                if !self.settings.streamed || self.empty_epochs == EMPTY_EPOCHS {
                    return Ok(false);
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

    /// The epoch, and the position in it.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.0.epoch, self.0.position)
    }

    /// `None` when the run is over.
    pub fn next(&mut self, lengths: &dyn ShardLengths) -> Result<Option<BatchPlan>, Blocked> {
        let OrderSettings { rank, world_size, batch_size, .. } = self.0.settings;
        if !self.0.advance(lengths)? {
            return Ok(None);
        }
        let (seq_len, rows) = self.0.settings.step(self.0.samples_read());
        let (position, Some(rank_epoch)) = (self.0.position, &mut self.0.rank_epoch) else {
            return Ok(None);
        };
        let mut samples = Vec::with_capacity(rows as usize);
        let mut shards: Option<Arc<[NeededShard]>> = None;
        while (samples.len() as u64) < rows {
            let at = position + samples.len() as u64;
            let Some(slice_at) = rank_epoch.slice_at(at, lengths)? else {
                break;
            };
            let count = slice_at.samples.len().min(rows as usize - samples.len());
            samples.extend_from_slice(&slice_at.samples[..count]);
            shards = Some(match shards {
                None => Arc::clone(slice_at.shards),
                Some(shards) => union(&shards, slice_at.shards),
            });
        }
        let positions = position..position + samples.len() as u64;
        self.0.position += rows;
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
            seq_len,
            shards: shards.unwrap_or_default(),
            cursor: Cursor { epoch, legs },
            rank,
        }))
    }
}

#[derive(Debug)]
pub struct UpcomingWindows(Place);

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
        self.0.advance(lengths).ok().filter(|&goes_on| goes_on)?;
        let position = self.0.position;
        let slice_at = self.0.rank_epoch.as_mut()?.slice_at(position, lengths).ok()??;
        let samples = slice_at.samples.len() as u64;
        let (until, shards) = (position + samples, Arc::clone(slice_at.shards));
        self.0.position = until;
        Some(UpcomingWindow { epoch: self.0.epoch, until, samples, shards })
    }
}

/// Without repeats, in order of first use.
fn union(first: &[NeededShard], second: &[NeededShard]) -> Arc<[NeededShard]> {
    let known: HashSet<u32> = first.iter().map(|needed| needed.shard).collect();
    let new = second.iter().filter(|needed| !known.contains(&needed.shard));
    first.iter().chain(new).copied().collect()
}
