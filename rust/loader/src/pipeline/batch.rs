//! A finished batch, and a row of one that is being filled. B rows, C captions per sample, L token ids per caption, M masked
//! rows, K kept patches.

use super::array_pool::Lease;
use super::bad_samples::BadSamples;
use crate::archive::RawMembers;
use crate::error::Error;
use crate::order::Cursor;
use crate::shards::SampleId;
use crate::text::captions::Caption;

#[derive(Debug)]
pub struct Batch {
    pub lease: Lease,
    pub samples: Vec<SampleId>,
    pub masked_rows: usize,
    /// Patches per image, with padding; 1 for square images.
    pub row_patches: usize,
    /// Where a run resumes after this batch.
    pub cursor: Cursor,
}

#[derive(Debug, Default)]
pub(crate) struct Row {
    /// `None` if it was bad and nothing replaced it.
    pub sample: Option<SampleId>,
    /// Its place in its shard.
    pub row: u32,
    /// Width and height of its image; 0 if it was not decoded.
    pub size: [i32; 2],
    /// Rows and columns of its patches.
    pub grid: [u32; 2],
    pub key: String,
    pub captions: Vec<Caption>,
    pub raw_members: RawMembers,
    pub bad_samples: BadSamples,
    /// Ends the run at this batch.
    pub fatal: Option<Error>,
}

impl Row {
    pub fn num_patches(&self) -> usize {
        self.grid[0] as usize * self.grid[1] as usize
    }
}
