//! What each stage did: counts and seconds, and the bad samples by reason. Threads count; whoever asks reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Reason, SampleError};

/// Bad samples that are named, not only counted.
const NAMED: usize = 20;
/// Samples that must have been tried before the share of bad ones counts as too high, unless the epoch is over.
const MIN_JUDGED: u64 = 100;

/// The stages that a sample or a batch passes, and the two kinds of waiting.
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
}

impl Stage {
    /// Every stage, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::Caption,
        Self::Decode,
        Self::Augment,
        Self::Tokenize,
        Self::Mask,
        Self::Wait,
        Self::Idle,
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
    seen: AtomicU64,
    batches: AtomicU64,
    bad: [AtomicU64; Reason::ALL.len()],
    first_bad: Mutex<Vec<String>>,
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
    /// Samples that were tried, bad ones included.
    pub samples: u64,
    /// Batches that were handed over.
    pub batches: u64,
    /// Batches that lie ready.
    pub ready: u64,
    /// Bad samples, in the order of [`Reason::ALL`].
    pub bad: [u64; Reason::ALL.len()],
    /// The first bad samples: shard, key, what is wrong.
    pub first_bad: Vec<String>,
}

impl Counters {
    /// Adds one run of a stage that began at `begun`; gives the time now, where the next stage begins.
    pub fn passed(&self, stage: Stage, begun: Instant) -> Instant {
        let now = Instant::now();
        self.add(stage, now - begun);
        now
    }

    fn add(&self, stage: Stage, time: Duration) {
        let counter = &self.stages[stage as usize];
        counter.count.fetch_add(1, Relaxed);
        counter
            .nanos
            .fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// A sample is tried.
    pub fn tried(&self) {
        self.seen.fetch_add(1, Relaxed);
    }

    /// A batch was handed over.
    pub fn delivered(&self) {
        self.batches.fetch_add(1, Relaxed);
    }

    /// A sample that cannot be used.
    ///
    /// # Errors
    /// There are now more of them than `limit` allows.
    pub fn bad(
        &self,
        place: std::fmt::Arguments<'_>,
        error: &SampleError,
        limit: f64,
    ) -> Result<(), Error> {
        self.bad[error.reason() as usize].fetch_add(1, Relaxed);
        let mut first = self
            .first_bad
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if first.len() < NAMED {
            first.push(format!("{place}: {error}"));
        }
        drop(first);
        self.judge(limit, MIN_JUDGED)
    }

    /// Checks the share of bad samples at the end of an epoch, however few were tried.
    ///
    /// # Errors
    /// There are more of them than `limit` allows.
    pub fn judge_epoch(&self, limit: f64) -> Result<(), Error> {
        self.judge(limit, 1)
    }

    fn judge(&self, limit: f64, at_least: u64) -> Result<(), Error> {
        let (bad, seen) = (self.num_bad(), self.seen.load(Relaxed));
        if bad as f64 > limit * seen.max(at_least) as f64 {
            Err(self.too_many_bad(limit))
        } else {
            Ok(())
        }
    }

    /// The error that says how many samples cannot be used, and why.
    #[must_use]
    pub fn too_many_bad(&self, limit: f64) -> Error {
        let counts = Reason::ALL
            .iter()
            .zip(&self.bad)
            .map(|(reason, count)| (reason.name(), count.load(Relaxed)));
        let counts: Vec<String> = counts
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name}: {count}"))
            .collect();
        let first = self
            .first_bad
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Error::TooManyBad {
            bad: self.num_bad(),
            seen: self.seen.load(Relaxed),
            limit,
            counts: counts.join(", "),
            first: first.iter().take(3).cloned().collect::<Vec<_>>().join("; "),
        }
    }

    fn num_bad(&self) -> u64 {
        self.bad.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The counters now; `ready` batches lie ready.
    #[must_use]
    pub fn snapshot(&self, ready: u64) -> LoaderStats {
        LoaderStats {
            stages: std::array::from_fn(|stage| StageStats {
                count: self.stages[stage].count.load(Relaxed),
                seconds: self.stages[stage].nanos.load(Relaxed) as f64 * 1e-9,
            }),
            samples: self.seen.load(Relaxed),
            batches: self.batches.load(Relaxed),
            ready,
            bad: std::array::from_fn(|reason| self.bad[reason].load(Relaxed)),
            first_bad: self
                .first_bad
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}
