//! Where a run stands.

use serde::Deserialize;

/// Steps that a run took in an epoch with one number of ranks and one batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leg {
    /// Number of ranks.
    pub world_size: u64,
    /// Samples of one rank's batch.
    pub batch_size: u64,
    /// Steps taken.
    pub steps: u64,
}

/// Where a run stands: the epoch, and what was done of it. The default is the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Its legs up to here; the last one goes on if neither the number of ranks nor the batch size has changed.
    pub legs: Vec<Leg>,
}

impl Cursor {
    /// The legs that are over, and the steps taken in the one that `world_size` ranks with batches of `batch_size` go on with.
    #[must_use]
    pub fn split(&self, world_size: u64, batch_size: u64) -> (Vec<Leg>, u64) {
        // A leg of no steps left the list as it was.
        let mut legs = self.legs.clone();
        legs.retain(|leg| leg.steps > 0);
        let goes_on = |leg: &Leg| (leg.world_size, leg.batch_size) == (world_size, batch_size);
        let steps = legs.pop_if(|leg| goes_on(leg)).map_or(0, |leg| leg.steps);
        (legs, steps)
    }
}
