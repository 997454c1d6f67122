//! A batch while threads fill it, and its outcome.

use super::bad_samples::BadSamples;
use super::batch::Batch;
use super::row_slots::RowSlots;
use crate::error::Error;
use crate::order::BatchPlan;

/// A batch that threads fill together.
#[derive(Debug)]
pub(crate) struct BatchInProgress {
    /// Its number in the run.
    pub number: u64,
    /// The samples that belong in it.
    pub plan: BatchPlan,
    /// One slot per row.
    pub slots: RowSlots,
}

/// The outcome of a batch. It depends only on the configuration and the data.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A complete batch. In evaluation it may be smaller, because bad samples are left out.
    Complete(Box<Batch>),
    /// A row is empty although the batch must be full: its sample and all substitutes are bad.
    TooFewSamples,
    /// A shard is missing, or captions cannot be tokenized.
    Failed(Error),
}

/// A batch that no thread works on any more.
#[derive(Debug)]
pub(crate) struct FinishedBatch {
    pub epoch: u64,
    /// The bad samples that were met on the way.
    pub bad_samples: BadSamples,
    pub outcome: Outcome,
}
