//! Divides a list of samples among ranks and into steps, by its length.

use std::ops::Range;

use crate::config::LastBatch;

/// Rank r reads positions ⌊total·r/ranks⌋ to ⌊total·(r+1)/ranks⌋, so parts differ by at most one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    pub total: u64,
    pub world_size: u64,
    pub batch_size: u64,
}

impl Partition {
    fn cut(&self, rank: u64) -> u64 {
        (u128::from(self.total) * u128::from(rank) / u128::from(self.world_size)) as u64
    }

    pub fn part(&self, rank: u64) -> Range<u64> {
        self.cut(rank)..self.cut(rank + 1)
    }

    pub fn length(&self, rank: u64) -> u64 {
        let part = self.part(rank);
        part.end - part.start
    }

    /// The rank whose part a rank reads: its own, or a neighbour's if its own part is empty and the list is not.
    pub fn owner(&self, rank: u64) -> u64 {
        if self.length(rank) > 0 || self.total == 0 {
            return rank;
        }
        let position = self.cut(rank).min(self.total - 1);
        let beyond = u128::from(position + 1) * u128::from(self.world_size);
        beyond.div_ceil(u128::from(self.total)) as u64 - 1
    }

    /// The positions of a rank that are divided into steps.
    pub fn room(&self, last_batch: LastBatch, rank: u64) -> u64 {
        match last_batch {
            LastBatch::Drop => self.total / self.world_size,
            LastBatch::Pad => self.total.div_ceil(self.world_size),
            LastBatch::Keep => self.length(rank),
        }
    }

    /// Steps after which every rank has read its whole part.
    pub fn max_steps(&self) -> u64 {
        self.total.div_ceil(self.world_size).div_ceil(self.batch_size)
    }

    /// `None` if some rank has read its whole part.
    fn used(&self, steps: u64) -> Option<u64> {
        // The longest part is one sample longer than the shortest.
        let used = steps.saturating_mul(self.batch_size);
        (used <= self.total / self.world_size).then_some(used)
    }

    pub fn after(&self, steps: u64) -> Remainder {
        let used = self.used(steps);
        let partition = *self;
        Remainder { partition, used }
    }
}

/// The samples that the parts have left, in rank order.
#[derive(Debug, Clone, Copy)]
pub struct Remainder {
    partition: Partition,
    used: Option<u64>,
}

impl Remainder {
    pub fn total(&self) -> u64 {
        self.start(self.partition.world_size)
    }

    /// The first sample that a rank left.
    fn start(&self, rank: u64) -> u64 {
        self.used.map_or(0, |used| self.partition.cut(rank) - rank * used)
    }

    /// The rank that left the sample at a position, and that rank's part from this sample to the end.
    pub fn locate(&self, position: u64) -> (u64, Range<u64>) {
        // The last rank that begins at or before the position. One that left nothing begins where the next one does.
        let (mut rank, mut beyond) = (0, self.partition.world_size);
        while beyond - rank > 1 {
            let middle = rank + (beyond - rank) / 2;
            if self.start(middle) <= position {
                rank = middle;
            } else {
                beyond = middle;
            }
        }
        let used = self.used.unwrap_or(0);
        let place = used + (position - self.start(rank));
        (rank, place..self.partition.length(rank))
    }
}
