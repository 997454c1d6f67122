//! Why a shard cannot be fetched.

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}", tried(*.attempts))]
pub struct FetchError {
    /// The shard's; empty if downloads could not be set up.
    pub address: String,
    pub what: String,
    pub attempts: u32,
    pub here: bool,
}

fn tried(attempts: u32) -> String {
    match attempts {
        0 => String::new(),
        1 => " (tried once)".to_owned(),
        more => format!(" (tried {more} times)"),
    }
}
