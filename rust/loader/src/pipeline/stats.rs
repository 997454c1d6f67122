//! Counts and times per stage.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::bad_samples::BadSamples;

/// Of a sample or a batch, and three kinds of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Read the sample's bytes from its shard.
    Read,
    Caption,
    Decode,
    /// Crop, resize, change colours and replace values, straight into the batch.
    Augment,
    /// All captions of a batch.
    Tokenize,
    /// Mask token ids and draw the kept patches of a batch.
    Mask,
    /// The reader waits for a batch: the loader is too slow.
    Wait,
    /// A thread waits for the reader to take a batch: the loader is fast enough.
    Idle,
    /// A thread waits for shards that are being downloaded.
    Fetch,
}

impl Stage {
    /// In the order of the stages' numbers.
    pub const NAMES: [&str; 9] =
        ["read", "caption", "decode", "augment", "tokenize", "mask", "wait", "idle", "fetch"];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

#[derive(Debug, Default)]
struct Counter {
    count: AtomicU64,
    nanos: AtomicU64,
}

#[derive(Debug, Default)]
pub struct Counters {
    stages: [Counter; Stage::NAMES.len()],
    batches: AtomicU64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct StageStats {
    pub count: u64,
    pub seconds: f64,
}

#[derive(Debug, Clone)]
pub struct LoaderStats {
    /// Per stage, in the order of [`Stage::NAMES`].
    pub stages: [StageStats; Stage::NAMES.len()],
    pub batches: u64,
    pub ready: u64,
    pub bad_samples: BadSamples,
}

impl Counters {
    /// Counts a stage that began at `begun`. Returns the current time, when the next one begins.
    pub fn passed(&self, stage: Stage, begun: Instant) -> Instant {
        let now = Instant::now();
        self.stages[stage as usize].count.fetch_add(1, Relaxed);
        self.spend(stage, now - begun);
        now
    }

    pub fn spend(&self, stage: Stage, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.stages[stage as usize].nanos.fetch_add(nanos, Relaxed);
    }

    pub fn delivered(&self) {
        self.batches.fetch_add(1, Relaxed);
    }

    pub fn snapshot(&self, ready: u64, bad_samples: BadSamples) -> LoaderStats {
        LoaderStats {
            stages: std::array::from_fn(|stage| StageStats {
                count: self.stages[stage].count.load(Relaxed),
                seconds: self.stages[stage].nanos.load(Relaxed) as f64 * 1e-9,
            }),
            batches: self.batches.load(Relaxed),
            ready,
            bad_samples,
        }
    }
}
