//! A finished batch.

use super::memory_pool::Lease;
use crate::order::Cursor;
use crate::shards::SampleId;

/// A finished batch. B rows, C captions a sample, L ids a caption, M masked rows, K kept patches.
#[derive(Debug)]
pub struct Batch {
    /// The arrays.
    pub lease: Lease,
    /// The samples, B of them.
    pub samples: Vec<SampleId>,
    /// M.
    pub masked_rows: usize,
    /// Where a run goes on after this batch.
    pub cursor: Cursor,
}
