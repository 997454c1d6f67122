//! Where bytes come from that lie in no plain local file: HTTP servers, object stores, the hub, commands, compressed files.
//!
//! ```text
//! address → source   where requests go: HTTP, or the `object_store` crate with its credentials
//!             │
//!          ranges    ranges in parallel, continued where a connection breaks, tried again with pauses
//!             │
//!           sink     the file that they are written into; a compressed shard is unpacked behind them
//! ```
//!
//! A shard is brought here whole before it is read: training reads it in another order than it was written in, by many
//! threads. What is asked for again is checked to be of the same state (ETag, or size and time), so a shard is never put
//! together from two.

mod address;
mod cache;
mod decompress;
mod download;
mod glob;
mod http;
mod object_storage;
mod origin;
mod partial_file;
mod pipe;
mod prefetch;
mod provider;
mod ranges;
mod request;
mod retry;
mod stat;
mod store;

pub use glob::settle;
pub use prefetch::{Prefetcher, RequestOf, ScanShard, ShardRequest};
pub use provider::{LocalFiles, ReadyShard, ShardProvider};
pub use stat::{examine, fetch_into};
pub use store::{Fetched, Store};
