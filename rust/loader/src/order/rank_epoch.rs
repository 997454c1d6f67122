//! What one rank reads in an epoch, by position.

use super::cursor::Leg;
use super::epoch_order::{EpochOrder, WindowSlice};
use super::shard_lengths::{Blocked, ShardLengths};
use super::steps::OrderSettings;
use super::streamed_epoch::StreamedEpoch;
use crate::config::LastBatch;

/// An epoch from the beginning of a leg.
#[derive(Debug)]
pub enum RankEpoch {
    Known(KnownEpoch),
    /// Lengths become known on the way.
    Streamed(StreamedEpoch),
}

#[derive(Debug)]
pub struct KnownEpoch {
    order: EpochOrder,
    owner: u64,
    length: u64,
    limit: u64,
}

impl RankEpoch {
    /// The samples that the `earlier_legs` left of an epoch. The run goes on where all ranks have read `samples_read` samples.
    pub fn new(
        settings: &OrderSettings,
        lengths: &dyn ShardLengths,
        epoch: u64,
        earlier_legs: &[Leg],
        (position, samples_read): (u64, u64),
    ) -> Self {
        if settings.streamed {
            let num_shards = lengths.counts().len();
            return Self::Streamed(StreamedEpoch::new(settings, num_shards, epoch, position));
        }
        let order = EpochOrder::new(settings, lengths.counts(), epoch, earlier_legs);
        let partition = order.partition();
        // A rank with an empty part pads with another rank's samples.
        let owner = partition.owner(settings.rank);
        let length = partition.length(owner);
        let room = partition.room(settings.last_batch, settings.rank);
        let limit = match settings.last_batch {
            LastBatch::Keep => room,
            _ => position + settings.steps(room.saturating_sub(position), samples_read).1,
        };
        Self::Known(KnownEpoch { order, owner, length, limit })
    }

    /// The samples from a position to the end of its window at most; `None` where the epoch is over.
    pub fn slice_at(
        &mut self,
        position: u64,
        lengths: &dyn ShardLengths,
    ) -> Result<Option<WindowSlice<'_>>, Blocked> {
        match self {
            Self::Known(known) => Ok(known.slice_at(position, lengths.counts())),
            Self::Streamed(streamed) => streamed.slice_at(position, lengths),
        }
    }
}

impl KnownEpoch {
    fn slice_at(&mut self, position: u64, counts: &[u32]) -> Option<WindowSlice<'_>> {
        if position >= self.limit {
            return None;
        }
        let place = position % self.length;
        let window = self.order.window(self.owner, place, counts);
        let count = (window.positions.end - place).min(self.limit - position) as usize;
        let first = (place - window.positions.start) as usize;
        Some(WindowSlice { samples: &window.samples[first..first + count], shards: &window.shards })
    }
}

pub fn samples_read(legs: &[Leg]) -> u64 {
    legs.iter().map(|leg| leg.steps.saturating_mul(leg.batch_size)).fold(0, u64::saturating_add)
}
