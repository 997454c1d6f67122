//! WebDataset shards to training batches, in pure Rust.
//!
//! ```text
//! pipeline   a run: threads, batches, statistics, bad samples
//!    │
//! order      which samples make which batch        archive   tar headers, samples, the index, reading
//! image      decoding and augmentation             text      captions, token ids, masks
//!    │
//! remote     downloads: HTTP, object stores, the hub, commands; retries, cache, prefetch
//!    │
//! shards     paths, addresses and patterns
//!    │
//! config, error, rng, buffer
//! ```
//! A room may use the rooms below it, but none beside or above it (`tests/house.rs` checks this).
//!
//! A run's batches depend only on the configuration, the shards and the cursor, never on threads or time: every random draw
//! comes from [`rng::SampleRng`]. Each stage measures its time ([`pipeline::Counters`]). A bad sample is counted, with its
//! reason and place, for the batch it was meant for ([`pipeline::Tally`]). Too many bad samples are an error ([`error`]),
//! raised at the same batch every time.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod archive;
mod buffer;
pub mod config;
pub mod error;
pub mod image;
pub mod order;
pub mod pipeline;
pub mod remote;
pub mod rng;
pub mod shards;
pub mod text;
