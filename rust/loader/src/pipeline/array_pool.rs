//! The arrays of a batch, and a pool that lets batches reuse them.

use std::sync::{Arc, Mutex};

use crate::archive::RawMembers;
use crate::os;

/// The arrays of one batch.
#[derive(Debug, Default)]
pub struct BatchArrays {
    /// `[B, H, W, 3]`. Longer than that if the batch is smaller than usual.
    pub images: Vec<u8>,
    /// `[C, B, L]`.
    pub token_ids: Vec<i32>,
    /// `[C, M, L]`.
    pub masked_token_ids: Vec<i32>,
    /// `[M, K]`.
    pub kept_patches: Vec<i64>,
    /// The keys of the B samples.
    pub keys: Vec<String>,
    /// The raw members of the B samples, if any are configured.
    pub raw_members: Vec<RawMembers>,
}

/// Arrays that no batch uses any more.
#[derive(Debug)]
pub struct ArrayPool {
    // Not `parking_lot`: in a forked child even its unlocking may wait for a thread that is not there.
    free: Mutex<Free>,
    image_bytes: usize,
}

#[derive(Debug)]
struct Free {
    arrays: Vec<BatchArrays>,
    /// How many are kept; 0 once the pool is closed.
    capacity: usize,
}

impl ArrayPool {
    /// A pool that keeps the arrays of at most `capacity` batches, each with `image_bytes` of pixels.
    #[must_use]
    pub fn new(capacity: usize, image_bytes: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(Free { arrays: Vec::new(), capacity }), image_bytes })
    }

    /// Reused or new arrays with room for all images.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Lease {
        let used = self.free.lock().ok().and_then(|mut free| free.arrays.pop());
        let arrays = used.unwrap_or_else(|| {
            // The allocator provides zeroed pages, so they are first touched by the threads that fill them.
            let mut images = vec![0; self.image_bytes];
            os::prefer_large_pages(&mut images);
            BatchArrays { images, ..BatchArrays::default() }
        });
        Lease { arrays, pool: Arc::clone(self) }
    }

    /// Frees the kept arrays, and from now on all arrays that come back.
    pub fn close(&self) {
        if let Ok(mut free) = self.free.lock() {
            free.capacity = 0;
            free.arrays = Vec::new();
        }
    }
}

/// The arrays of a batch. They return to the pool when this is dropped.
#[derive(Debug)]
pub struct Lease {
    /// The arrays.
    pub arrays: BatchArrays,
    pool: Arc<ArrayPool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Never waits: in a forked child the lock may belong to a thread that does not exist. Then the arrays are
        // freed.
        if let Ok(mut free) = self.pool.free.try_lock()
            && free.arrays.len() < free.capacity
        {
            free.arrays.push(std::mem::take(&mut self.arrays));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_returns_to_the_pool_until_it_is_closed() {
        let pool = ArrayPool::new(2, 12);
        let leases: Vec<Lease> = (0..3).map(|_| pool.take()).collect();
        assert!(leases.iter().all(|lease| lease.arrays.images.len() == 12));
        let last = pool.take();
        drop(leases);
        assert_eq!(pool.free.lock().unwrap().arrays.len(), 2);
        pool.close();
        drop(last);
        assert_eq!(pool.free.lock().unwrap().arrays.len(), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_large_batch_asks_for_large_pages() {
        let lease = ArrayPool::new(1, 8 << 20).take();
        let middle = lease.arrays.images.as_ptr().addr() + (4 << 20);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let flags = flags_of(&maps, middle);
        // A kernel or a sandbox without large pages has neither the setting nor the flag.
        let known = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        assert_eq!(flags.contains("hg"), known, "{flags}");
    }

    /// The flags of the mapping that an address is in.
    #[cfg(target_os = "linux")]
    fn flags_of(maps: &str, address: usize) -> &str {
        let number = |text| usize::from_str_radix(text, 16);
        let mut found = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((Ok(from), Ok(to))) = range.map(|(from, to)| (number(from), number(to))) {
                found = (from..to).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| found) {
                return flags;
            }
        }
        ""
    }
}
