//! A batch on its way: while threads fill it, and when none has anything left to do.

use super::bad_samples::Tally;
use super::batch::Batch;
use super::row_slots::Slots;
use crate::error::Error;
use crate::order::BatchPlan;

/// A batch that threads fill together.
#[derive(Debug)]
pub(crate) struct Filling {
    /// Its place among the batches of the run.
    pub number: u64,
    /// What belongs in it.
    pub plan: BatchPlan,
    /// The slots.
    pub slots: Slots,
}

/// What became of a batch. All of it is a function of the configuration and the data.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is as it should be, or smaller where bad samples are left out.
    Made(Box<Batch>),
    /// A place is empty that must not be: its sample and all substitutes are bad.
    Unfilled,
    /// A shard is gone, or its texts cannot become ids.
    Failed(Error),
}

/// A batch of which no thread has anything left to do.
#[derive(Debug)]
pub(crate) struct Finished {
    pub epoch: u64,
    /// Samples that were tried for it.
    pub tally: Tally,
    pub outcome: Outcome,
}
