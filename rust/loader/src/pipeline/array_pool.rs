//! The arrays of a batch, and a pool that lets batches reuse them.

use std::sync::{Arc, Mutex};

use crate::archive::RawMembers;
use crate::os;

#[derive(Debug, Default)]
pub struct BatchArrays {
    /// `[B, H, W, 3]` or patches, times the bytes of a value. Longer if the batch is smaller than usual.
    pub images: Vec<u8>,
    /// `[C, B, L]`.
    pub token_ids: Vec<i32>,
    /// `[C, M, L]`.
    pub masked_token_ids: Vec<i32>,
    /// `[M, K]`.
    pub kept_patches: Vec<i64>,
    /// Row and column of each patch.
    pub patch_coords: Vec<[i16; 2]>,
    /// `[B]`, rows and columns of patches.
    pub grids: Vec<[i32; 2]>,
    /// `[B]`, places in their shards.
    pub rows: Vec<u32>,
    /// `[B]`, width and height of the encoded images; 0 if they were not decoded.
    pub sizes: Vec<[i32; 2]>,
    pub keys: Vec<String>,
    pub raw_members: Vec<RawMembers>,
}

#[derive(Debug)]
pub struct ArrayPool {
    // Not `parking_lot`: in a forked child even its unlocking may wait for a thread that is not there.
    free: Mutex<Free>,
    image_bytes: usize,
}

#[derive(Debug)]
struct Free {
    arrays: Vec<BatchArrays>,
    /// Maximum number kept; 0 once the pool is closed.
    capacity: usize,
}

impl ArrayPool {
    pub fn new(capacity: usize, image_bytes: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(Free { arrays: Vec::new(), capacity }), image_bytes })
    }

    pub fn take(self: &Arc<Self>) -> Lease {
        let used = self.free.lock().ok().and_then(|mut free| free.arrays.pop());
        let arrays = used.unwrap_or_else(|| {
            // The allocator's pages are zeros already, so the threads that fill them touch them first.
            let mut images = vec![0; self.image_bytes];
            os::prefer_large_pages(&mut images);
            BatchArrays { images, ..BatchArrays::default() }
        });
        Lease { arrays, pool: Arc::clone(self) }
    }

    pub fn close(&self) {
        if let Ok(mut free) = self.free.lock() {
            free.capacity = 0;
            free.arrays = Vec::new();
        }
    }
}

/// The arrays of a batch. Dropping it returns them to the pool.
#[derive(Debug)]
pub struct Lease {
    pub arrays: BatchArrays,
    pool: Arc<ArrayPool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Never waits: in a forked child the lock may belong to a thread that does not exist.
        if let Ok(mut free) = self.pool.free.try_lock()
            && free.arrays.len() < free.capacity
        {
            free.arrays.push(std::mem::take(&mut self.arrays));
        }
    }
}
