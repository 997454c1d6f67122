//! A request for bytes of a shard, and its response, for any kind of server.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use reqwest::header::HeaderMap;
use tokio::time::timeout;

use super::retry::{Failure, retry_after};
use crate::shards::Identity;

/// The requested bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Range(u64, u64),
    /// All bytes, from a server without ranges.
    Whole,
}

pub(crate) type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>;

/// A response whose body is still unread.
pub(crate) struct Answer {
    pub identity: Identity,
    /// Offset in the shard of the body's first byte.
    pub start: u64,
    /// Whether the server sent the requested range instead of everything.
    pub ranged: bool,
    pub body: Body,
}

pub(crate) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    timeout(limit, work).await.map_err(|_| Failure::again(format!("no byte for {limit:?}")))
}

pub(crate) fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get("retry-after")?.to_str().ok()?)
}
