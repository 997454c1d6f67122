//! After the first batches, the number of allocations per batch does not depend on the number of images.

#![allow(clippy::unwrap_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use common::{archive, config, member, next, open};
use prolip_loader::config::LoaderConfig;
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{Batch, Pipeline};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A run in its steady state: allocations per batch, and the addresses of its images.
///
/// The best of several windows counts: on a busy machine a buffer may be used for the first time late.
fn steady(config: LoaderConfig) -> (f64, Vec<*const u8>) {
    const BATCHES: u64 = 20;
    const WINDOWS: usize = 4;
    let dataset = open(config, 0, 1).unwrap();
    let pipeline = Pipeline::start(Arc::clone(&dataset), &Cursor::default()).unwrap();
    let batch = || -> Batch { next(&pipeline).unwrap().unwrap() };
    // After that, every buffer has grown to its final size.
    for _ in 0..30 {
        batch();
    }
    let mut places = Vec::with_capacity(WINDOWS * BATCHES as usize);
    let mut least = u64::MAX;
    for _ in 0..WINDOWS {
        let before = ALLOCATIONS.load(Relaxed);
        for _ in 0..BATCHES {
            places.push(batch().lease.arrays.images.as_ptr());
        }
        least = least.min(ALLOCATIONS.load(Relaxed) - before);
    }
    places.sort_unstable();
    places.dedup();
    (least as f64 / BATCHES as f64, places)
}

#[test]
fn allocations_do_not_grow_with_the_batch_size() {
    let folder = tempfile::tempdir().unwrap();
    let jpeg = include_bytes!("data/420.jpg");
    let sample = |index: usize| {
        let json = format!(
            r#"{{"name": "cat {index}", "levels": {{"group": ["the", "a cat", "cats"]}}}}"#
        );
        [
            member(&format!("{index:03}.jpg"), jpeg),
            member(&format!("{index:03}.txt"), b"the cat"),
            member(&format!("{index:03}.json"), json.as_bytes()),
        ]
        .concat()
    };
    let samples: Vec<Vec<u8>> = (0..64).map(sample).collect();
    for shard in 0..4 {
        let path = folder.path().join(format!("{shard}.tar"));
        std::fs::write(path, archive(&samples)).unwrap();
    }
    for augmented in [true, false] {
        let base = config(folder.path());
        let run = |batch_size| {
            steady(LoaderConfig {
                batch_size,
                augment: base.augment.clone().filter(|_| augmented),
                num_epochs: None,
                shuffle_window: 100,
                ..base.clone()
            })
        };
        let ((few, _), (many, places)) = (run(4), run(64));
        // What each batch needs: its plan, its place in the queue, and so on.
        assert!(many < 60.0, "{many} allocations a batch");
        // Each epoch allocates too. With 64 images, fewer batches share these allocations.
        assert!(many < few + 20.0, "{many} allocations for 64 images, {few} for 4");
        assert!(places.len() <= base.prefetch_batches + 2, "{} places", places.len());
    }
}
