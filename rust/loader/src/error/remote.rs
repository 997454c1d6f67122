//! Why a shard cannot be downloaded.

/// A shard that could not be brought here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{what}{}", named(.address), tried(*.attempts))]
pub struct FetchError {
    /// The address, without credentials; empty where it is about none.
    pub address: String,
    /// What the last attempt met.
    pub what: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether there is no such shard, or no permission to see it.
    pub missing: bool,
    /// Whether it is this machine that failed: a full disk is no shard's fault.
    pub here: bool,
}

fn named(address: &str) -> String {
    if address.is_empty() {
        String::new()
    } else {
        format!("shard {address}: ")
    }
}

fn tried(attempts: u32) -> String {
    match attempts {
        0 => String::new(),
        1 => " (tried once)".to_owned(),
        more => format!(" (tried {more} times)"),
    }
}
