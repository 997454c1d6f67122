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
//! Each room uses those below it and none beside or above it (`tests/house.rs`).
//!
//! A run's batches depend on the configuration, the shards and the cursor alone, never on threads or time: every draw
//! comes from [`rng::SampleRng`]. Each stage counts its time ([`pipeline::Counters`]); a bad sample is counted by reason and place with the
//! batch that it was meant for ([`pipeline::Tally`]), and too many of them are an error ([`error`]), at the same batch every time.

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
