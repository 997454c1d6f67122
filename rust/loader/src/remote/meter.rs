//! The disk space of a shard while it is fetched, and whether its download is cancelled.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Meter {
    expected: AtomicU64,
    /// Also to a second file that unpacks the first.
    written: AtomicU64,
    called_off: AtomicBool,
}

impl Meter {
    pub fn expecting(bytes: u64) -> Self {
        Self { expected: bytes.into(), ..Self::default() }
    }

    pub fn bytes(&self) -> u64 {
        self.expected.load(Ordering::Relaxed).max(self.written())
    }

    /// Since the last restart.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Begins a shard, perhaps again. `size` is what the server says it sends, in bytes.
    pub fn begin(&self, size: Option<u64>) {
        self.written.store(0, Ordering::Relaxed);
        if let Some(size) = size {
            self.expected.store(size, Ordering::Relaxed);
        }
    }

    pub fn add(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn settle(&self, bytes: u64) {
        self.begin(Some(bytes));
    }

    pub fn call_off(&self) {
        self.called_off.store(true, Ordering::Relaxed);
    }

    pub fn is_called_off(&self) -> bool {
        self.called_off.load(Ordering::Relaxed)
    }
}
