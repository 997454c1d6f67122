//! Samples → contiguous memory, used over and over.

mod slots;

use std::sync::{Arc, Mutex};

pub use slots::{Slot, Slots, Whole};

use crate::caption::Caption;
use crate::order::Cursor;

/// What a slot holds besides its pixels.
#[derive(Debug, Default)]
pub struct Row {
    /// Id of the sample that came to stand here; `None` where it was bad and nothing took its place.
    pub sample: Option<u64>,
    /// One caption a slot of captions.
    pub captions: Vec<Caption>,
    /// The sample's json as text, where it is asked for.
    pub json: Option<String>,
}

/// The arrays of one batch.
#[derive(Debug, Default)]
pub struct Memory {
    /// `[B, H, W, 3]`.
    pub images: Vec<u8>,
    /// `[C, B, L]`.
    pub token_ids: Vec<i32>,
    /// `[C, M, L]`.
    pub masked_token_ids: Vec<i32>,
    /// `[M, K]`.
    pub kept_patches: Vec<i64>,
}

/// Memory of batches that nobody uses any more.
#[derive(Debug)]
pub struct Pool {
    free: Mutex<Vec<Memory>>,
    capacity: usize,
}

impl Pool {
    /// A pool that keeps the memory of at most `capacity` batches.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(Vec::with_capacity(capacity)),
            capacity,
        })
    }

    /// Memory that was used before, or none yet.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Lease {
        let memory = self
            .free
            .lock()
            .ok()
            .and_then(|mut free| free.pop())
            .unwrap_or_default();
        Lease {
            memory,
            pool: Arc::clone(self),
        }
    }
}

/// Memory that goes back to its pool when it is dropped.
#[derive(Debug)]
pub struct Lease {
    /// The arrays.
    pub memory: Memory,
    pool: Arc<Pool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Never waits: in a forked child the lock may belong to a thread that is not there. Then the memory is freed.
        if let Ok(mut free) = self.pool.free.try_lock()
            && free.len() < self.pool.capacity
        {
            free.push(std::mem::take(&mut self.memory));
        }
    }
}

/// A finished batch. B rows, C captions a sample, L ids a caption, M masked rows, K kept patches.
#[derive(Debug)]
pub struct Batch {
    /// The arrays.
    pub lease: Lease,
    /// Ids of the samples, B of them.
    pub samples: Vec<u64>,
    /// M.
    pub masked_rows: usize,
    /// The samples' json as text, where it is asked for.
    pub json: Option<Vec<String>>,
    /// Where a run goes on after this batch.
    pub cursor: Cursor,
}
