//! A request for a shard's bytes and its answer, whatever kind of server holds them.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use reqwest::header::HeaderMap;
use tokio::time::timeout;

use super::retry::{Failure, retry_after};
use crate::shards::Identity;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The bytes from one place up to another.
    Range(u64, u64),
    /// All of them, from a server that does not do ranges.
    Whole,
}

/// The bytes of an answer as they come.
pub(crate) type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>;

/// The beginning of an answer.
pub(crate) struct Answer {
    pub identity: Identity,
    /// Place of the body's first byte in the shard.
    pub start: u64,
    /// Whether the server gave the range that was asked for, and not all bytes.
    pub ranged: bool,
    pub body: Body,
}

/// Work that counts as broken when it takes longer.
pub(crate) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    timeout(limit, work)
        .await
        .map_err(|_| Failure::again(format!("no byte for {limit:?}")))
}

/// The pause that a server asks for.
pub(crate) fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get("retry-after")?.to_str().ok()?)
}
