//! The order of 1.4 billion samples in 140,146 shards: planned for 4,096 ranks, and resumed in mid-epoch by 3,000. No shard is read.
//!
//! It is a program of its own, so that no other test takes memory meanwhile.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use prolip_loader::config::LastBatch;
use prolip_loader::order::{BatchPlan, BatchPlans, Cursor, Leg, OrderSettings};

const SHARDS: u32 = 140_146;
const RANKS: u64 = 4_096;
const BATCH: u64 = 16;
/// Not quite half of the epoch's 21,362 steps.
const STOP: u64 = 10_000;
const FEWER: u64 = 3_000;

/// Shards of different lengths, some of them empty.
fn counts() -> Vec<u32> {
    let length = |shard: u32| 5_000 + shard.wrapping_mul(2_654_435_761) % 10_000;
    (0..SHARDS).map(|shard| if shard % 1_000 == 7 { 0 } else { length(shard) }).collect()
}

fn rules(rank: u64, world_size: u64) -> OrderSettings {
    OrderSettings {
        seed: 11,
        window: 10_000,
        batch_size: BATCH,
        native: None,
        rank,
        world_size,
        last_batch: LastBatch::Drop,
        num_epochs: Some(1),
        streamed: false,
        num_samples: None,
        sampler: None,
    }
}

fn stopped() -> Cursor {
    let leg = Leg { world_size: RANKS, batch_size: BATCH, steps: STOP };
    Cursor { epoch: 0, legs: vec![leg] }
}

fn batches(
    counts: &Vec<u32>,
    rules: OrderSettings,
    from: &Cursor,
) -> impl Iterator<Item = BatchPlan> {
    let mut route = BatchPlans::new(rules, from);
    std::iter::from_fn(move || route.next(counts).unwrap())
}

/// The largest memory that this process has had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn planning_scales_to_the_whole_internet() {
    let counts = counts();
    let before = peak_memory();
    let plan = |rank, ranks, from: &Cursor| {
        drop(batches(&counts, rules(rank, ranks), from).next().unwrap())
    };
    let begun = Instant::now();
    plan(RANKS / 2, RANKS, &Cursor::default());
    plan(FEWER / 2, FEWER, &stopped());
    let (time, memory) = (begun.elapsed(), peak_memory() - before);
    println!("planned and resumed in {time:?}, {} kB", memory / 1024);
    assert!(time < Duration::from_secs(5), "{time:?}");
    assert!(memory < 100 << 20, "{memory}");
}
