//! Failures of requests: which of them are retried, and when.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::error::FetchError;
use crate::os;
use crate::shards::without_secrets;

/// Longest pause at a server's request.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pauses double, from the first to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(20);
/// After this many new bytes the count of failures starts again. Not after fewer: a server that sends a kilobyte at a time would
/// get thousands of requests for one range.
const PROGRESS_BYTES: u64 = 256 << 10;
/// The status of an answer to a range.
pub(crate) const PARTIAL_CONTENT: u16 = 206;
/// Longest quoted error text, in characters.
const MAX_WORDS: usize = 200;

/// What to do after a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Retry.
    Again,
    /// Give up.
    Final,
    /// This machine cannot store the bytes.
    Here,
    /// The shard has changed: start again from the beginning.
    Changed,
}

/// One failed request.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub verdict: Verdict,
    pub status: Option<u16>,
    /// The pause requested by the server, however long.
    pub pause: Option<Duration>,
    pub what: String,
    /// Failed attempts, this one included. 0 before the first.
    pub attempts: u32,
}

impl Failure {
    fn new(verdict: Verdict, what: impl Into<String>) -> Self {
        Self { verdict, status: None, pause: None, what: what.into(), attempts: 0 }
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

    /// The failure for a range of a shard whose size the server does not know.
    pub fn of_unknown_size() -> Self {
        let status = Some(PARTIAL_CONTENT);
        Self { status, ..Self::again("an answer to a range without the shard's size") }
    }

    /// The failure for a status code.
    pub fn of_status(status: u16, pause: Option<Duration>) -> Self {
        let verdict = match status {
            412 => Verdict::Changed,
            408 | 416 | 425 | 429 => Verdict::Again,
            501 | 505 => Verdict::Final,
            500.. => Verdict::Again,
            _ => Verdict::Final,
        };
        let what = format!("the server answers {status}{}", meaning(status));
        Self { status: Some(status), pause, ..Self::new(verdict, what) }
    }

    /// If this machine cannot store the bytes, adds the path to the message, and how many bytes are free there.
    /// `called` says what the path is.
    pub fn at(mut self, called: &str, path: &Path) -> Self {
        if self.verdict == Verdict::Here {
            let bytes = path.ancestors().find_map(os::free_bytes);
            let free =
                bytes.map_or_else(String::new, |bytes| format!(", where {bytes} bytes are free"));
            self.what = format!("{}; {called} is {}{free}", self.what, path.display());
        }
        self
    }

    /// The final error for a shard.
    pub fn into_error(self, address: impl ToString) -> FetchError {
        FetchError {
            address: address.to_string(),
            here: self.verdict == Verdict::Here,
            what: self.what,
            attempts: self.attempts,
        }
    }
}

fn meaning(status: u16) -> &'static str {
    match status {
        401 => " (not signed in)",
        403 => " (no permission)",
        404 => " (not found)",
        410 => " (gone)",
        416 => " (no such range)",
        429 => " (too many requests)",
        500 => " (internal error)",
        503 => " (unavailable)",
        _ => "",
    }
}

/// The failure for a file that cannot be written.
pub(crate) fn write_failure(error: std::io::Error) -> Failure {
    Failure::here(format!("its bytes cannot be kept: {error}"))
}

/// The seconds of a `Retry-After`. A date is ignored, so the usual pause applies.
pub(crate) fn retry_after(value: &str) -> Option<Duration> {
    let seconds: u64 = value.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The messages of an error and its causes, without secrets from addresses.
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

/// Whether the server's certificate is invalid, which no retry changes.
pub(crate) fn is_untrusted_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = inner.downcast_ref() {
            return true;
        }
        // The error inside an io::Error is not its source, so look inside.
        let packed = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match packed {
            Some(packed) => Some(packed),
            None => inner.source(),
        };
    }
    false
}

/// Counts attempts and computes the pauses between them.
#[derive(Debug)]
pub(crate) struct Attempts {
    limit: u32,
    /// Failures since the last progress.
    failures: u32,
    /// New bytes since then.
    bytes: u64,
    /// All failed attempts.
    made: u32,
}

impl Attempts {
    pub fn new(retries: u32) -> Self {
        Self { limit: retries, failures: 0, bytes: 0, made: 0 }
    }

    /// The pause before the next attempt, or the failure if there are no more attempts. `new_bytes` were delivered by the failed
    /// attempt; after enough of them the count starts again.
    pub fn failed(&mut self, failure: Failure, new_bytes: u64) -> Result<Duration, Failure> {
        self.made += 1;
        self.bytes = self.bytes.saturating_add(new_bytes);
        if self.bytes >= PROGRESS_BYTES {
            (self.failures, self.bytes) = (0, 0);
        }
        self.failures += 1;
        match failure.verdict {
            Verdict::Again | Verdict::Changed if self.failures <= self.limit => {
                // A server that asks for no pause, or always for a short one, may need the usual ones nevertheless.
                let asked = failure.pause.unwrap_or_default().min(LONGEST_PAUSE);
                Ok(asked.max(backoff(self.failures - 1)))
            }
            _ => Err(Failure { attempts: self.made, ..failure }),
        }
    }
}

/// Does the work, again and with pauses while it fails in a way that may pass.
pub(crate) async fn retried<T, Work: Future<Output = Result<T, Failure>>>(
    retries: u32,
    mut work: impl FnMut() -> Work,
) -> Result<T, Failure> {
    let mut attempts = Attempts::new(retries);
    loop {
        match work().await {
            Ok(done) => return Ok(done),
            Err(failure) => sleep(attempts.failed(failure, 0)?).await,
        }
    }
}

/// A pause that doubles with every failure, randomly shortened by up to a half, so that many readers don't retry together.
fn backoff(failures: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(failures)).min(LAST_BACKOFF);
    let random = RandomState::new().hash_one(failures) >> 11;
    full.mul_f64(1.0 - 0.5 * (random as f64 / (1u64 << 53) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_decides_whether_to_retry() {
        for (status, verdict) in [
            (404, Verdict::Final),
            (403, Verdict::Final),
            (400, Verdict::Final),
            (412, Verdict::Changed),
            (416, Verdict::Again),
            (429, Verdict::Again),
            (500, Verdict::Again),
            (503, Verdict::Again),
            (501, Verdict::Final),
        ] {
            assert_eq!(Failure::of_status(status, None).verdict, verdict, "{status}");
        }
    }

    #[test]
    fn attempts_end_unless_bytes_arrive() {
        let mut attempts = Attempts::new(2);
        let failure = || Failure::of_status(503, None);
        assert!(attempts.failed(failure(), 0).is_ok());
        assert!(attempts.failed(failure(), 0).is_ok());
        assert!(attempts.failed(failure(), PROGRESS_BYTES).is_ok());
        assert!(attempts.failed(failure(), 0).is_ok());
        let failure = attempts.failed(failure(), 0).unwrap_err();
        let error = failure.into_error("http://h/a.tar");
        assert_eq!(
            error.to_string(),
            "shard http://h/a.tar: the server answers 503 (unavailable) (tried 5 times)"
        );
        let missing = attempts.failed(Failure::of_status(404, None), PROGRESS_BYTES);
        assert_eq!(missing.unwrap_err().verdict, Verdict::Final);
    }

    #[test]
    fn attempts_with_few_bytes_count_as_failed() {
        let count = |bytes| {
            let mut attempts = Attempts::new(10);
            let failed = |_: &u32| attempts.failed(Failure::again("it broke"), bytes).is_ok();
            (0..1000).take_while(failed).count()
        };
        assert_eq!(count(1000), 10);
        assert_eq!(count(PROGRESS_BYTES / 11), 10);
        assert_eq!(count(PROGRESS_BYTES / 10 + 1), 1000);
    }

    #[test]
    fn an_untrusted_certificate_is_recognised() {
        let certificate = rustls::CertificateError::UnknownIssuer;
        let distrust = rustls::Error::InvalidCertificate(certificate);
        let packed = std::io::Error::other(std::io::Error::other(distrust));
        assert!(is_untrusted_certificate(&packed));
        assert!(!is_untrusted_certificate(&std::io::Error::other("no route to host")));
    }

    #[test]
    fn a_full_disk_names_the_place_and_its_free_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("not/there");
        let full = std::io::Error::from_raw_os_error(28);
        let full_text = full.to_string();
        let mut failure = write_failure(full).at("the file", &absent);
        failure.attempts = 1;
        let said = failure.into_error("http://h/a.tar").to_string();
        let (before, free) = said.split_once(", where ").unwrap();
        assert_eq!(
            before,
            format!(
                "shard http://h/a.tar: its bytes cannot be kept: {full_text}; the file is {}",
                absent.display()
            )
        );
        let (bytes, rest) = free.split_once(' ').unwrap();
        assert_eq!(rest, "bytes are free (tried once)");
        assert!(bytes.parse::<u64>().unwrap() > 0);
        let other = Failure::again("it broke").at("the file", &absent);
        assert_eq!(other.what, "it broke");
    }

    #[test]
    fn retry_pauses_grow_within_bounds_and_vary() {
        for failures in 0..40 {
            let pause = backoff(failures);
            let full = FIRST_BACKOFF.as_secs_f64() * 2f64.powi(failures as i32);
            let full = full.min(LAST_BACKOFF.as_secs_f64());
            assert!(pause.as_secs_f64() <= full && pause.as_secs_f64() >= 0.499 * full);
        }
        assert_ne!(backoff(5), backoff(5));
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("100000"), Some(Duration::from_secs(100_000)));
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        let mut attempts = Attempts::new(3);
        for (asked, given) in [("2", Duration::from_secs(2)), ("100000", LONGEST_PAUSE)] {
            let failure = Failure::of_status(503, retry_after(asked));
            assert_eq!(attempts.failed(failure, 0).unwrap(), given);
        }
    }

    #[test]
    fn a_server_that_always_asks_for_a_short_pause_gets_the_usual_time() {
        for asked in ["0", "1"] {
            let mut attempts = Attempts::new(10);
            let failure = || Failure::of_status(503, retry_after(asked));
            let pauses = (0..10).map(|_| attempts.failed(failure(), 0).unwrap());
            assert!(pauses.sum::<Duration>() > Duration::from_secs(30), "{asked}");
        }
    }
}
