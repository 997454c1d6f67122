//! The arrays of a batch, and a pool of them that batches reuse.

use std::sync::{Arc, Mutex};

use crate::archive::RawMembers;

/// The arrays of one batch.
#[derive(Debug, Default)]
pub struct Memory {
    /// `[B, H, W, 3]`, and behind it what a smaller batch leaves unused.
    pub images: Vec<u8>,
    /// `[C, B, L]`.
    pub token_ids: Vec<i32>,
    /// `[C, M, L]`.
    pub masked_token_ids: Vec<i32>,
    /// `[M, K]`.
    pub kept_patches: Vec<i64>,
    /// The samples' keys, B of them.
    pub keys: Vec<String>,
    /// The samples' members that are kept, B of them where any are asked for.
    pub kept: Vec<RawMembers>,
}

/// Memory of batches that nobody uses any more.
#[derive(Debug)]
pub struct Pool {
    // Not `parking_lot`: in a forked child even its unlocking may wait for a thread that is not there.
    free: Mutex<Free>,
    image_bytes: usize,
}

#[derive(Debug)]
struct Free {
    memory: Vec<Memory>,
    /// How many are kept; none once the pool is closed.
    capacity: usize,
}

impl Pool {
    /// A pool that keeps the memory of at most `capacity` batches, whose pictures take `image_bytes` together.
    #[must_use]
    pub fn new(capacity: usize, image_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(Free {
                memory: Vec::new(),
                capacity,
            }),
            image_bytes,
        })
    }

    /// Memory that was used before or is new, with room for all pictures.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Lease {
        let used = self.free.lock().ok().and_then(|mut free| free.memory.pop());
        let memory = used.unwrap_or_else(|| Memory {
            // Zeros from the allocator, not written: the pages are touched by the threads that fill them.
            images: vec![0; self.image_bytes],
            ..Memory::default()
        });
        Lease {
            memory,
            pool: Arc::clone(self),
        }
    }

    /// Frees what is kept, and what comes back from now on.
    pub fn close(&self) {
        if let Ok(mut free) = self.free.lock() {
            free.capacity = 0;
            free.memory = Vec::new();
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
            && free.memory.len() < free.capacity
        {
            free.memory.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_until_the_pool_is_closed() {
        let pool = Pool::new(2, 12);
        let leases: Vec<Lease> = (0..3).map(|_| pool.take()).collect();
        assert!(leases.iter().all(|lease| lease.memory.images.len() == 12));
        let last = pool.take();
        drop(leases);
        assert_eq!(pool.free.lock().unwrap().memory.len(), 2);
        pool.close();
        drop(last);
        assert_eq!(pool.free.lock().unwrap().memory.len(), 0);
    }
}
