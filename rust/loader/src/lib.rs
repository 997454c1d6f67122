//! WebDataset shards to training batches, in pure Rust.
//!
//! ```text
//! pipeline   a run: threads, batches, statistics, bad samples
//!    │
//! order      which samples make which batch        archive   tar headers, samples, the index, reading
//! text       captions, token ids, masks
//!    │
//! image      the pixels of samples, by the crate `prolip-image`
//! remote     downloads: HTTP, object stores, the hub, commands; retries, cache, prefetch
//!    │
//! shards     paths, addresses and patterns
//!    │
//! config, error, rng, buffer, os    (the crate `prolip-jpeg`: the JPEG decoder, and which vector instructions kernels use)
//! ```
//! A room uses only rooms on lower floors (`tests/house.rs`).
//!
//! The batches of a run depend only on the configuration, the shards and the cursor, never on threads or time: every random draw
//! comes from [`rng::SampleRng`]. Each stage counts its time ([`pipeline::LoaderStats`]), and each batch its bad samples
//! ([`pipeline::BadSamples`]).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod archive;
mod buffer;
pub mod config;
pub mod error;
pub mod image;
pub mod order;
mod os;
pub mod pipeline;
pub mod remote;
pub mod rng;
pub mod shards;
pub mod text;
