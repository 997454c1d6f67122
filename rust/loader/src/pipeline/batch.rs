//! A finished batch, and a row of one that is being filled.

use super::array_pool::Lease;
use super::bad_samples::BadSamples;
use crate::archive::RawMembers;
use crate::error::Error;
use crate::order::Cursor;
use crate::shards::SampleId;
use crate::text::captions::Caption;

/// A finished batch. B rows, C captions per sample, L token ids per caption, M masked rows, K kept patches.
#[derive(Debug)]
pub struct Batch {
    /// The arrays.
    pub lease: Lease,
    /// The B samples.
    pub samples: Vec<SampleId>,
    /// M.
    pub masked_rows: usize,
    /// Where a run resumes after this batch.
    pub cursor: Cursor,
}

/// One row of a batch while it is filled, without its pixels.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// The sample in this row; `None` if it was bad and nothing replaced it.
    pub sample: Option<SampleId>,
    /// The sample's key.
    pub key: String,
    /// One caption per caption slot.
    pub captions: Vec<Caption>,
    /// The members that are returned as raw bytes.
    pub raw_members: RawMembers,
    /// The bad samples that were met for this row.
    pub bad_samples: BadSamples,
    /// The error that ends the run at this batch, if any.
    pub fatal: Option<Error>,
}
