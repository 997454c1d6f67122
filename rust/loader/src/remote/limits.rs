//! Limits on a shard's size and speed, for bytes from servers, commands and decompression.

use std::time::{Duration, Instant};

use super::retry::Failure;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub retries: u32,
    pub timeout: Duration,
    /// Bytes per second, on average over `timeout`.
    pub min_rate: u64,
    /// As sent and as unpacked.
    pub max_bytes: u64,
}

impl Limits {
    pub fn check_size(&self, bytes: u64) -> Result<(), Failure> {
        if bytes <= self.max_bytes {
            return Ok(());
        }
        let limit = self.max_bytes;
        Err(Failure::terminal(format!(
            "it has more bytes than store.max_shard_bytes = {limit} allows"
        )))
    }

    pub fn check_rate(&self, bytes: u64, elapsed: Duration) -> Result<(), Failure> {
        if bytes as f64 >= self.min_rate as f64 * elapsed.as_secs_f64() {
            return Ok(());
        }
        let rate = self.min_rate;
        Err(Failure::again(format!(
            "only {bytes} bytes in {elapsed:.1?}, fewer than store.min_bytes_per_s = {rate}"
        )))
    }
}

/// The speed of one response.
pub(super) struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    pub fn new() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    pub fn arrived(&mut self, bytes: usize, limits: &Limits) -> Result<(), Failure> {
        self.bytes += bytes as u64;
        let elapsed = self.since.elapsed();
        if elapsed < limits.timeout {
            return Ok(());
        }
        limits.check_rate(self.bytes, elapsed)?;
        *self = Self::new();
        Ok(())
    }
}
