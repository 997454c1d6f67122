//! What one rank reads in an epoch, position by position.

use super::cursor::Leg;
use super::epoch::{EpochOrder, Stretch};
use super::lengths::{Blocked, Lengths};
use super::rules::Rules;
use super::unknown_lengths::Streamed;
use crate::config::LastBatch;

/// An epoch from the beginning of a leg on.
#[derive(Debug)]
pub enum Reading {
    /// All lengths are known.
    Known(Known),
    /// They turn out on the way.
    Streamed(Streamed),
}

/// A rank's part of a known list.
#[derive(Debug)]
pub struct Known {
    order: EpochOrder,
    /// The rank whose part it is.
    owner: u64,
    length: u64,
    limit: u64,
}

impl Reading {
    /// What `earlier` legs left of an epoch.
    pub fn new(rules: &Rules, lengths: &dyn Lengths, epoch: u64, earlier: &[Leg]) -> Self {
        if rules.streamed {
            let begun = begun(earlier);
            return Self::Streamed(Streamed::new(rules, lengths.counts().len(), epoch, begun));
        }
        let order = rules.order(lengths.counts(), epoch, earlier);
        let division = order.division();
        // A rank that has nothing pads with what another one has.
        let owner = division.owner(rules.rank);
        let length = division.length(owner);
        let limit = match rules.last_batch {
            LastBatch::Keep => division.length(rules.rank),
            rule => division.num_steps(rule, rules.rank) * rules.batch_size,
        };
        Self::Known(Known {
            order,
            owner,
            length,
            limit,
        })
    }

    /// The samples from a position on that are shuffled together, or their beginning; nothing where the epoch is over.
    ///
    /// # Errors
    /// The length of a shard is not known, or never will be.
    pub fn stretch(
        &mut self,
        position: u64,
        lengths: &dyn Lengths,
    ) -> Result<Option<Stretch<'_>>, Blocked> {
        match self {
            Self::Known(known) => Ok(known.stretch(position, lengths.counts())),
            Self::Streamed(streamed) => streamed.stretch(position, lengths),
        }
    }
}

impl Known {
    fn stretch(&mut self, position: u64, counts: &[u32]) -> Option<Stretch<'_>> {
        if position >= self.limit {
            return None;
        }
        // Past its end a part is read from its beginning again.
        let place = position % self.length;
        let window = self.order.window(self.owner, place, counts);
        let count = (window.positions.end - place).min(self.limit - position) as usize;
        let first = (place - window.positions.start) as usize;
        Some(Stretch {
            samples: &window.samples[first..first + count],
            shards: &window.shards,
        })
    }
}

/// Samples of a rank that some legs of an epoch read, where a rank's samples are the same in each.
pub fn begun(legs: &[Leg]) -> u64 {
    legs.iter()
        .map(|leg| leg.steps.saturating_mul(leg.batch_size))
        .fold(0, u64::saturating_add)
}
