//! Why a shard cannot be fetched.

use super::printable::Printable;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{}", named(.address), Printable(what), tried(*.attempts))]
pub struct FetchError {
    pub address: String,
    pub what: String,
    pub attempts: u32,
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
