//! A list divided among ranks and into steps: arithmetic on lengths.

use std::ops::Range;

use crate::config::LastBatch;

/// A list of samples and the ranks that share it: rank r has the positions from ⌊total·r/ranks⌋ to ⌊total·(r+1)/ranks⌋, so that
/// no two parts differ by more than one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    /// Samples of the list.
    pub total: u64,
    /// Number of ranks.
    pub world_size: u64,
    /// Samples of one rank's batch.
    pub batch_size: u64,
}

impl Division {
    fn cut(&self, rank: u64) -> u64 {
        (u128::from(self.total) * u128::from(rank) / u128::from(self.world_size)) as u64
    }

    /// The positions that a rank reads.
    #[must_use]
    pub fn part(&self, rank: u64) -> Range<u64> {
        self.cut(rank)..self.cut(rank + 1)
    }

    /// Samples of a rank's part.
    #[must_use]
    pub fn length(&self, rank: u64) -> u64 {
        let part = self.part(rank);
        part.end - part.start
    }

    /// The rank whose part a rank reads: its own, or where that is empty and the list is not, that of a neighbour.
    #[must_use]
    pub fn owner(&self, rank: u64) -> u64 {
        if self.length(rank) > 0 || self.total == 0 {
            return rank;
        }
        let position = self.cut(rank).min(self.total - 1);
        let beyond = u128::from(position + 1) * u128::from(self.world_size);
        beyond.div_ceil(u128::from(self.total)) as u64 - 1
    }

    /// Batches of a rank. They are as many on every rank, but for [`LastBatch::Keep`], where they may differ by one.
    #[must_use]
    pub fn num_steps(&self, last_batch: LastBatch, rank: u64) -> u64 {
        let step = u128::from(self.world_size) * u128::from(self.batch_size);
        let total = u128::from(self.total);
        match last_batch {
            LastBatch::Drop => (total / step) as u64,
            LastBatch::Pad => total.div_ceil(step) as u64,
            LastBatch::Keep => self.length(rank).div_ceil(self.batch_size),
        }
    }

    /// Steps after which no rank has anything left.
    #[must_use]
    pub fn max_steps(&self) -> u64 {
        self.total
            .div_ceil(self.world_size)
            .div_ceil(self.batch_size)
    }

    /// Samples that every part has used after some steps; nothing where there are parts that are used up.
    fn used(&self, steps: u64) -> Option<u64> {
        // The longest part is one sample longer than the shortest: more than that are more than all.
        let used = steps.saturating_mul(self.batch_size);
        (used <= self.total / self.world_size).then_some(used)
    }

    /// The list of what all parts have left after some steps.
    #[must_use]
    pub fn after(&self, steps: u64) -> Leftover {
        let used = self.used(steps);
        let division = *self;
        Leftover { division, used }
    }
}

/// What the parts of a list have left, end to end in the order of the ranks.
#[derive(Debug, Clone, Copy)]
pub struct Leftover {
    division: Division,
    used: Option<u64>,
}

impl Leftover {
    /// Samples of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.start(self.division.world_size)
    }

    /// Position of the first sample that a rank left.
    fn start(&self, rank: u64) -> u64 {
        self.used
            .map_or(0, |used| self.division.cut(rank) - rank * used)
    }

    /// The rank that left the sample at a position, where that lies in the rank's part, and how many follow it there.
    #[must_use]
    pub fn locate(&self, position: u64) -> (u64, Range<u64>) {
        // The last rank that begins at or before the position: one that left nothing begins where the next does.
        let (mut rank, mut beyond) = (0, self.division.world_size);
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
        (rank, place..self.division.length(rank))
    }
}
