//! Tests of the loader from outside, in one program: linking one program per file would take minutes.
//!
//! Tests that count allocations, memory or time need a process of their own and are beside it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/fake.rs"]
mod fake;
#[path = "../common/server.rs"]
mod server;

mod compressed;
mod download;
mod download_unpack;
mod failures;
mod hostile_server;
mod index;
mod mask;
mod order;
mod order_resampled;
mod order_streamed;
mod panics;
mod pipeline;
mod prefetch;
mod prefetched_run;
mod prefetched_run_streamed;
mod selection;
mod settings;
mod tar;
mod training_pixels;
mod whole_loader;
