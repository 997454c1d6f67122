//! Failures of requests: which of them are retried, and when.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use crate::error::FetchError;
use crate::shards::without_secrets;

const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pauses double, from the first to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(20);
/// After this many new bytes the count of failures starts again. A server that sends a kilobyte at a time would get thousands of
/// requests for one range.
const PROGRESS_BYTES: u64 = 256 << 10;
const MAX_WORDS: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Again,
    Final,
    /// This machine cannot store the bytes.
    Here,
    /// Start again from the beginning: the shard has changed.
    Changed,
}

#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub verdict: Verdict,
    /// Requested by the server, however long.
    pub pause: Option<Duration>,
    pub what: String,
    /// This one included. 0 before the first.
    pub attempts: u32,
}

impl Failure {
    fn new(verdict: Verdict, what: impl Into<String>) -> Self {
        Self { verdict, pause: None, what: what.into(), attempts: 0 }
    }

    pub fn again(what: impl Into<String>) -> Self {
        Self::new(Verdict::Again, what)
    }

    pub fn changed(what: impl Into<String>) -> Self {
        Self::new(Verdict::Changed, what)
    }

    pub fn terminal(what: impl Into<String>) -> Self {
        Self::new(Verdict::Final, what)
    }

    pub fn here(what: impl Into<String>) -> Self {
        Self::new(Verdict::Here, what)
    }

    pub fn of_status(status: u16, pause: Option<Duration>) -> Self {
        let verdict = match status {
            // Of a shard that became shorter, a range may lie beyond the end.
            412 | 416 => Verdict::Changed,
            408 | 425 | 429 => Verdict::Again,
            501 | 505 => Verdict::Final,
            500.. => Verdict::Again,
            _ => Verdict::Final,
        };
        let what = format!("the server answers {status}");
        Self { pause, ..Self::new(verdict, what) }
    }

    /// Adds the path to the message if this machine cannot store the bytes. `called` says what the path is.
    pub fn at(mut self, called: &str, path: &Path) -> Self {
        if self.verdict == Verdict::Here {
            self.what = format!("{}; {called} is {}", self.what, path.display());
        }
        self
    }

    pub fn into_error(self, address: impl ToString) -> FetchError {
        FetchError {
            address: address.to_string(),
            here: self.verdict == Verdict::Here,
            what: self.what,
            attempts: self.attempts,
        }
    }
}

pub(crate) fn write_failure(error: std::io::Error) -> Failure {
    Failure::here(format!("its bytes cannot be kept: {error}"))
}

pub(crate) fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    let text = without_secrets(&text);
    match text.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[derive(Debug)]
pub(crate) struct Attempts {
    limit: u32,
    failures: u32,
    /// New bytes since then.
    bytes: u64,
    made: u32,
}

impl Attempts {
    pub fn new(retries: u32) -> Self {
        Self { limit: retries, failures: 0, bytes: 0, made: 0 }
    }

    /// The pause before the next attempt, or the failure if there is none. After enough `new_bytes` the count starts again.
    pub fn failed(&mut self, failure: Failure, new_bytes: u64) -> Result<Duration, Failure> {
        self.made += 1;
        self.bytes = self.bytes.saturating_add(new_bytes);
        if self.bytes >= PROGRESS_BYTES {
            (self.failures, self.bytes) = (0, 0);
        }
        self.failures += 1;
        match failure.verdict {
            Verdict::Again | Verdict::Changed if self.failures <= self.limit => {
                // A server that asks for no pause or a short one may still need the usual one.
                let asked = failure.pause.unwrap_or_default().min(LONGEST_PAUSE);
                Ok(asked.max(backoff(self.failures - 1)))
            }
            _ => Err(Failure { attempts: self.made, ..failure }),
        }
    }
}

/// Randomly shortened by up to a half, so that many readers don't retry together.
fn backoff(failures: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(failures)).min(LAST_BACKOFF);
    let random = RandomState::new().hash_one(failures) >> 11;
    full.mul_f64(1.0 - 0.5 * (random as f64 / (1u64 << 53) as f64))
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
