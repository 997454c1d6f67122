//! Fetches shards that are not plain local files: from HTTP servers, object stores, the hub and commands, or compressed.
//!
//! ```text
//! address → origin    where requests go: HTTP, or the `object_store` crate with its credentials and retries
//!              │
//!           transfer  ranges in parallel, resumed when a connection breaks, retried with pauses
//!              │
//!           download  the file that the ranges are written to; a compressed shard is unpacked then
//! ```
//!
//! A shard is fetched completely before it is read, because many threads read it in random order. Every later request must be of
//! the same state (ETag, or size and time), so a shard is never assembled from two.

mod address;
mod cache;
mod decompress;
mod download;
mod fetcher;
mod glob;
mod http;
mod limits;
mod meter;
mod object_storage;
mod origin;
mod pipe;
mod prefetch;
mod prefetch_state;
mod provider;
mod request;
mod retry;
mod stat;
mod transfer;

pub use fetcher::{Fetched, Fetcher};
pub use glob::{check_addresses, settle};
pub use prefetch::{Prefetcher, RequestOf, ScanShard, ShardRequest};
pub use provider::{ReadyShard, ShardProvider};
pub use stat::{examine, fetch_into};
