//! Why a shard cannot be fetched.

use super::printable::Printable;

/// Why a shard could not be downloaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{}", named(.address), Printable(what), tried(*.attempts))]
pub struct FetchError {
    /// The address without credentials; empty if the error is about no address.
    pub address: String,
    /// What went wrong in the last attempt.
    pub what: String,
    /// Number of attempts.
    pub attempts: u32,
    /// Whether the cause is on this machine, such as a full disk.
    pub here: bool,
}

fn named(address: &str) -> String {
    if address.is_empty() { String::new() } else { format!("shard {}: ", Printable(address)) }
}

fn tried(attempts: u32) -> String {
    match attempts {
        0 => String::new(),
        1 => " (tried once)".to_owned(),
        more => format!(" (tried {more} times)"),
    }
}
