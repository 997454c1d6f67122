//! A request for bytes, and its response.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;

use super::retry::Failure;
use crate::shards::Identity;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Range(u64, u64),
    /// From a server without ranges.
    Whole,
}

pub(crate) type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>;

/// A response whose body is still unread.
pub(crate) struct Answer {
    pub identity: Identity,
    /// Offset in the shard.
    pub start: u64,
    /// Whether the server sent the range, not everything.
    pub ranged: bool,
    pub body: Body,
}
