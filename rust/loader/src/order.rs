//! Which samples make which batch: pure functions of the configuration, so that a run can begin anywhere.
//!
//! An epoch's order: the shards are permuted and put one behind the other, the sequence is cut into windows (at a random
//! offset, so that no two epochs share their cuts), and each window is permuted. A window's permutation is drawn from
//! (seed, epoch, window) alone: finding the sample at a position takes memory for one window and no look at those before.

use std::ops::Range;

use crate::config::{LastBatch, MAX_WINDOW};
use crate::rng::{SampleRng, stream};
use crate::sample::SampleId;

/// The order of one epoch.
#[derive(Debug)]
pub struct EpochOrder {
    seed: u64,
    epoch: u64,
    window: u64,
    /// Positions at which the first cut lies, below `window`.
    offset: u64,
    total: u64,
    /// Shards in this epoch's order: the position of each one's first sample, and the shard.
    shards: Vec<(u64, u32)>,
    permuted: Option<(u64, Vec<u32>)>,
}

impl EpochOrder {
    /// The order of `epoch` over shards with these numbers of samples.
    ///
    /// A `window` of 0 keeps the order of the files; one above [`MAX_WINDOW`] is taken for that.
    #[must_use]
    pub fn new(counts: &[u32], seed: u64, window: usize, epoch: u64) -> Self {
        let window = window.min(MAX_WINDOW);
        let mut numbers: Vec<u32> = (0..counts.len() as u32).collect();
        let mut offset = 0;
        if window > 0 {
            let mut rng = SampleRng::new(seed, epoch, 0, stream::ORDER);
            rng.shuffle(&mut numbers);
            offset = u64::from(rng.below(u32::try_from(window).unwrap_or(u32::MAX)));
        }
        let mut total = 0;
        let mut shards = Vec::with_capacity(numbers.len());
        for number in numbers {
            let count = counts[number as usize];
            if count > 0 {
                shards.push((total, number));
                total += u64::from(count);
            }
        }
        Self {
            seed,
            epoch,
            window: window as u64,
            offset,
            total,
            shards,
            permuted: None,
        }
    }

    /// The sample at a position of this epoch.
    pub fn sample_at(&mut self, position: u64) -> SampleId {
        debug_assert!(position < self.total);
        let place = if self.window == 0 {
            position
        } else {
            self.shuffled(position)
        };
        let shard = self.shards.partition_point(|&(start, _)| start <= place) - 1;
        let (start, shard) = self.shards[shard];
        SampleId {
            shard,
            sample: (place - start) as u32,
        }
    }

    fn shuffled(&mut self, position: u64) -> u64 {
        // Window 0 is what lies before the first cut; it may be empty.
        let number = (position + self.window - self.offset) / self.window;
        let start = (number * self.window + self.offset).saturating_sub(self.window);
        if self
            .permuted
            .as_ref()
            .is_none_or(|(cached, _)| *cached != number)
        {
            let end = (number * self.window + self.offset).min(self.total);
            let mut places = self
                .permuted
                .take()
                .map_or_else(Vec::new, |(_, places)| places);
            places.clear();
            places.extend(0..(end - start) as u32);
            SampleRng::new(self.seed, self.epoch, number + 1, stream::ORDER).shuffle(&mut places);
            self.permuted = Some((number, places));
        }
        let places = self.permuted.as_ref().map_or(&[][..], |(_, places)| places);
        start + u64::from(places[(position - start) as usize])
    }
}

/// How an epoch's positions are divided into batches and among ranks.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    /// Samples of an epoch.
    pub total: u64,
    /// Samples of one rank's batch.
    pub batch_size: u64,
    /// This rank.
    pub rank: u64,
    /// Number of ranks.
    pub world_size: u64,
    /// What becomes of the samples that do not fill a last batch.
    pub last_batch: LastBatch,
}

impl Split {
    /// Samples that all ranks together use at one step.
    #[must_use]
    pub fn global_batch(&self) -> u64 {
        self.batch_size * self.world_size
    }

    /// Parts that the epoch is read in, each from its own beginning: positions mean little in other parts.
    #[must_use]
    pub fn parts(&self) -> u64 {
        match self.last_batch {
            LastBatch::Drop | LastBatch::Pad => 1,
            LastBatch::Keep => self.world_size,
        }
    }

    /// Batches of this rank in an epoch of which `consumed` samples are used up.
    ///
    /// With [`LastBatch::Drop`] it is the same on every rank. With [`LastBatch::Keep`] it may differ by one.
    #[must_use]
    pub fn num_batches(&self, consumed: u64) -> u64 {
        match self.last_batch {
            LastBatch::Drop | LastBatch::Pad => {
                self.total.saturating_sub(consumed) / self.global_batch()
            }
            LastBatch::Keep => {
                let part = self.part();
                let batches = (part.end - part.start).div_ceil(self.batch_size);
                batches.saturating_sub(consumed.div_ceil(self.global_batch()))
            }
        }
    }

    /// Positions of this rank's batch `number` in an epoch that went on at `consumed`.
    #[must_use]
    pub fn positions(&self, consumed: u64, number: u64) -> Range<u64> {
        match self.last_batch {
            LastBatch::Drop | LastBatch::Pad => {
                let start = consumed + number * self.global_batch() + self.rank * self.batch_size;
                start..start + self.batch_size
            }
            LastBatch::Keep => {
                let part = self.part();
                let done = consumed.div_ceil(self.global_batch()) + number;
                let start = part.start + done * self.batch_size;
                start..(start + self.batch_size).min(part.end)
            }
        }
    }

    /// Samples of the epoch that are used up after batch `number`.
    #[must_use]
    pub fn consumed_after(&self, consumed: u64, number: u64) -> u64 {
        let begun = match self.last_batch {
            LastBatch::Drop | LastBatch::Pad => consumed,
            LastBatch::Keep => consumed.div_ceil(self.global_batch()) * self.global_batch(),
        };
        (begun + (number + 1) * self.global_batch()).min(self.total)
    }

    /// The contiguous part of the epoch that this rank evaluates.
    fn part(&self) -> Range<u64> {
        let cut = |rank: u64| {
            (u128::from(self.total) * u128::from(rank) / u128::from(self.world_size)) as u64
        };
        cut(self.rank)..cut(self.rank + 1)
    }
}

/// Where a run stands: the epoch, and how many of its samples all ranks together have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Samples of it that are used up.
    pub samples: u64,
    /// Parts that the epoch is read in ([`Split::parts`]).
    pub parts: u64,
}

impl Default for Cursor {
    /// The beginning.
    fn default() -> Self {
        Self {
            epoch: 0,
            samples: 0,
            parts: 1,
        }
    }
}

/// One batch to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    /// Its epoch.
    pub epoch: u64,
    /// Its positions in the epoch.
    pub positions: Range<u64>,
    /// Where a run goes on after it.
    pub cursor: Cursor,
}

/// The batches of a run, one after the other.
#[derive(Debug, Clone)]
pub struct Planner {
    split: Split,
    num_epochs: Option<u64>,
    epoch: u64,
    consumed: u64,
    number: u64,
}

impl Planner {
    /// The batches from a cursor on.
    #[must_use]
    pub fn new(split: Split, num_epochs: Option<u64>, from: Cursor) -> Self {
        Self {
            split,
            num_epochs,
            epoch: from.epoch,
            consumed: from.samples,
            number: 0,
        }
    }
}

impl Iterator for Planner {
    type Item = BatchPlan;

    fn next(&mut self) -> Option<BatchPlan> {
        while self.number >= self.split.num_batches(self.consumed) {
            // An epoch without batches never gets any: without this an endless run would search forever.
            if self.split.num_batches(0) == 0 {
                return None;
            }
            (self.epoch, self.consumed, self.number) = (self.epoch + 1, 0, 0);
        }
        if self.num_epochs.is_some_and(|epochs| self.epoch >= epochs) {
            return None;
        }
        let samples = self.split.consumed_after(self.consumed, self.number);
        let plan = BatchPlan {
            epoch: self.epoch,
            positions: self.split.positions(self.consumed, self.number),
            cursor: Cursor {
                epoch: self.epoch,
                samples,
                parts: self.split.parts(),
            },
        };
        self.number += 1;
        Some(plan)
    }
}
