//! WebDataset shards to training batches, in pure Rust.
//!
//! ```text
//!  opening, once                       a run
//!  ─────────────                       ─────────────────────────────────────────────────────────────────────
//!  shards   patterns → paths           order      (seed, epoch, position) → sample id
//!    │                                   │
//!  tar      headers → members          pipeline   begins a batch: ids, memory from the pool
//!    │                                   │  slots, one thread each
//!  sample   members → samples          read → caption → decode → augment      straight into the batch
//!    │                                   │  the last slot's thread
//!  index    shard → samples' regions    tokenize → mask                        the whole batch at once
//!                                        │
//!                                      reader takes batches in order; their memory goes back to the pool
//! ```
//!
//! A run's batches depend on the configuration, the shards and the cursor alone, never on threads or time: every draw
//! comes from [`rng::SampleRng`]. Each stage counts its time ([`stats`]); a bad sample is counted by reason and place with the
//! batch that it was meant for ([`tally`]), and too many of them are an error ([`error`]), at the same batch every time.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod augment;
pub mod batch;
mod buffer;
pub mod caption;
pub mod config;
pub mod decode;
pub mod decode_only;
mod decompress;
pub mod error;
pub mod index;
pub mod json;
pub mod kept;
pub mod loader;
pub mod location;
pub mod mask;
pub mod order;
mod picture;
pub mod pipeline;
pub mod read;
pub mod rng;
pub mod sample;
mod schedule;
pub mod shards;
mod sources;
pub mod stats;
pub mod store;
pub mod supply;
pub mod tally;
pub mod tar;
mod texts;
pub mod tokenize;
mod worker;
