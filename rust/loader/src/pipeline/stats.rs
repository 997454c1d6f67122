//! What each stage did: counts and seconds. Threads count; whoever asks reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::bad_samples::Tally;

/// The stages that a sample or a batch passes, and the three kinds of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Bytes from the shard.
    Read,
    /// Captions from the members.
    Caption,
    /// Picture to pixels.
    Decode,
    /// Crop, resize, colour, straight into the batch.
    Augment,
    /// Captions to ids, a batch at once.
    Tokenize,
    /// Masked ids and kept patches, a batch at once.
    Mask,
    /// The reader waits for a batch: the loader is too slow.
    Wait,
    /// A thread waits for the reader to take a batch: the loader is fast enough.
    Idle,
    /// A thread waits for shards that are on their way.
    Fetch,
}

impl Stage {
    /// Every stage, in the order of its number.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Caption,
        Self::Decode,
        Self::Augment,
        Self::Tokenize,
        Self::Mask,
        Self::Wait,
        Self::Idle,
        Self::Fetch,
    ];

    /// The stage's name in statistics and errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Caption => "caption",
            Self::Decode => "decode",
            Self::Augment => "augment",
            Self::Tokenize => "tokenize",
            Self::Mask => "mask",
            Self::Wait => "wait",
            Self::Idle => "idle",
            Self::Fetch => "fetch",
        }
    }
}

#[derive(Debug, Default)]
struct Counter {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// Counters that all threads of a loader share.
#[derive(Debug, Default)]
pub struct Counters {
    stages: [Counter; Stage::ALL.len()],
    batches: AtomicU64,
}

/// How often a stage ran and how long it took, all threads together.
#[derive(Debug, Clone, Copy, Default)]
pub struct StageStats {
    /// Times.
    pub count: u64,
    /// Seconds.
    pub seconds: f64,
}

/// The counters at one moment.
#[derive(Debug, Clone)]
pub struct LoaderStats {
    /// By stage, in the order of [`Stage::ALL`].
    pub stages: [StageStats; Stage::ALL.len()],
    /// Batches that were handed over.
    pub batches: u64,
    /// Batches that lie ready.
    pub ready: u64,
    /// Samples of the batches that the reader has passed.
    pub tally: Tally,
}

impl Counters {
    /// Adds one run of a stage that began at `begun`; gives the time now, where the next stage begins.
    pub fn passed(&self, stage: Stage, begun: Instant) -> Instant {
        let now = Instant::now();
        self.stages[stage as usize].count.fetch_add(1, Relaxed);
        self.spend(stage, now - begun);
        now
    }

    /// Adds time to a stage that is not over yet.
    pub fn spend(&self, stage: Stage, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.stages[stage as usize].nanos.fetch_add(nanos, Relaxed);
    }

    /// A batch was handed over.
    pub fn delivered(&self) {
        self.batches.fetch_add(1, Relaxed);
    }

    /// The counters now; `ready` batches lie ready, and `tally` was counted in those before.
    #[must_use]
    pub fn snapshot(&self, ready: u64, tally: Tally) -> LoaderStats {
        LoaderStats {
            stages: std::array::from_fn(|stage| StageStats {
                count: self.stages[stage].count.load(Relaxed),
                seconds: self.stages[stage].nanos.load(Relaxed) as f64 * 1e-9,
            }),
            batches: self.batches.load(Relaxed),
            ready,
            tally,
        }
    }
}
