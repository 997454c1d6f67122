//! Where a run stands, so that it can be resumed.

use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leg {
    pub world_size: u64,
    pub batch_size: u64,
    pub steps: u64,
}

/// The default is the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// From 0.
    pub epoch: u64,
    /// The last one continues if neither the number of ranks nor the batch size changes.
    pub legs: Vec<Leg>,
}

impl Cursor {
    /// The finished legs, and the steps taken in the leg that continues with `world_size` ranks and `batch_size`.
    pub fn split(&self, world_size: u64, batch_size: u64) -> (Vec<Leg>, u64) {
        // A leg without steps changed nothing.
        let mut legs = self.legs.clone();
        legs.retain(|leg| leg.steps > 0);
        let goes_on = |leg: &Leg| (leg.world_size, leg.batch_size) == (world_size, batch_size);
        let steps = legs.pop_if(|leg| goes_on(leg)).map_or(0, |leg| leg.steps);
        (legs, steps)
    }
}
