//! A finished batch.

use super::array_pool::Lease;
use crate::order::Cursor;
use crate::shards::SampleId;

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
