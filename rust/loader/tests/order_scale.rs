//! The order of 1.4 billion samples in 140,146 shards: planned for 4,096 ranks, and resumed in mid-epoch by 3,000. No shard is read.
//!
//! It is a program of its own, so that no other test takes memory meanwhile.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use prolip_loader::config::LastBatch;
use prolip_loader::order::{BatchPlan, BatchPlans, Cursor, Leg, OrderSettings, Partition};
use prolip_loader::shards::SampleId;

const SHARDS: usize = 140_146;
const TOTAL: u64 = 1_400_000_000;
const RANKS: u64 = 4_096;
const BATCH: u64 = 16;
/// Not quite half of the epoch's 21,362 steps.
const STOP: u64 = 10_000;
const FEWER: u64 = 3_000;

/// Shards of different lengths, some of them empty.
fn counts() -> Vec<u32> {
    let mut counts: Vec<u32> =
        (0..SHARDS as u32)
            .map(|shard| {
                if shard % 1_000 == 7 {
                    0
                } else {
                    5_000 + shard.wrapping_mul(2_654_435_761) % 9_900
                }
            })
            .collect();
    let sum: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    // The last shards are enlarged until the sum is right.
    let mut missing = TOTAL.checked_sub(sum).unwrap();
    for count in counts.iter_mut().rev() {
        let more = missing.min(20_000);
        *count += more as u32;
        missing -= more;
    }
    counts
}

fn rules(rank: u64, world_size: u64, last_batch: LastBatch) -> OrderSettings {
    OrderSettings {
        seed: 11,
        window: 10_000,
        batch_size: BATCH,
        rank,
        world_size,
        last_batch,
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

/// The shortest of three: other work on the machine only makes it longer.
fn fastest(mut work: impl FnMut()) -> Duration {
    let time = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    (0..3).map(time).min().unwrap()
}

#[test]
fn planning_scales_to_the_whole_internet() {
    let counts = counts();
    planning_takes_less_than_a_second_and_100_mb(&counts);
    parts_and_legs_hold_every_sample_once();
    ranks_that_take_over_read_what_was_left(&counts);
}

fn planning_takes_less_than_a_second_and_100_mb(counts: &Vec<u32>) {
    let before = peak_memory();
    let middle = rules(RANKS / 2, RANKS, LastBatch::Drop);
    let planned =
        fastest(|| drop(batches(counts, middle.clone(), &Cursor::default()).next().unwrap()));
    let later = rules(FEWER / 2, FEWER, LastBatch::Drop);
    let resumed = fastest(|| drop(batches(counts, later.clone(), &stopped()).next().unwrap()));
    let memory = peak_memory() - before;
    println!("planned in {planned:?}, resumed in {resumed:?}, {} kB", memory / 1024);
    assert!(planned < Duration::from_secs(1) && resumed < Duration::from_secs(1));
    assert!(memory < 100 << 20, "{memory}");
}

/// Checks positions only: the parts make up the list, and what they leave makes up the list of the next leg.
fn parts_and_legs_hold_every_sample_once() {
    let first = rules(0, RANKS, LastBatch::Drop).partition(TOTAL);
    let left = first.after(STOP);
    assert_eq!(left.total(), TOTAL - RANKS * BATCH * STOP);
    let mut start = 0;
    for rank in 0..RANKS {
        let length = first.length(rank);
        // Positions follow each other through the ranks, and within a rank from its first unused sample to its last.
        assert_eq!(left.locate(start), (rank, BATCH * STOP..length));
        start += length - BATCH * STOP;
        assert_eq!(left.locate(start - 1), (rank, length - 1..length));
    }
    assert_eq!(start, left.total());
    let second = rules(0, FEWER, LastBatch::Drop).partition(left.total());
    for partition in [first, second] {
        contiguous_and_of_equal_steps(partition);
    }
}

fn contiguous_and_of_equal_steps(partition: Partition) {
    let step = partition.world_size * partition.batch_size;
    let mut end = 0;
    for rank in 0..partition.world_size {
        let part = partition.part(rank);
        assert_eq!(part.start, end);
        end = part.end;
        assert_eq!(partition.num_steps(LastBatch::Drop, rank), partition.total / step);
        assert_eq!(partition.num_steps(LastBatch::Pad, rank), partition.total.div_ceil(step));
        assert!(
            partition.num_steps(LastBatch::Drop, rank) * partition.batch_size
                <= partition.length(rank)
        );
        assert!(
            partition.num_steps(LastBatch::Pad, rank) * partition.batch_size
                >= partition.length(rank)
        );
    }
    assert_eq!(end, partition.total);
}

/// Checks samples: the new ranks read each sample that an old rank left once, and none that it had read.
fn ranks_that_take_over_read_what_was_left(counts: &Vec<u32>) {
    let (old, keep) = (1_234, LastBatch::Keep);
    let whole: Vec<SampleId> = batches(counts, rules(old, RANKS, keep), &Cursor::default())
        .flat_map(|plan| plan.samples)
        .collect();
    let (used, left) = whole.split_at((STOP * BATCH) as usize);
    // Positions of the first sample that this rank left, and after the last one.
    let first = rules(old, RANKS, keep).partition(TOTAL);
    let start: u64 = (0..old).map(|rank| first.length(rank) - STOP * BATCH).sum();
    let end = start + left.len() as u64;
    let second = rules(0, FEWER, keep).partition(first.after(STOP).total());
    let takers: Vec<u64> = (0..FEWER)
        .filter(|&rank| second.part(rank).start < end && second.part(rank).end > start)
        .collect();
    assert_eq!(takers.len(), 2);
    let used: HashSet<SampleId> = used.iter().copied().collect();
    let wanted: HashSet<SampleId> = left.iter().copied().collect();
    assert_eq!((used.len() + wanted.len()) as u64, first.length(old));
    let mut found = HashSet::new();
    for rank in takers {
        for sample in
            batches(counts, rules(rank, FEWER, keep), &stopped()).flat_map(|plan| plan.samples)
        {
            assert!(!used.contains(&sample));
            assert!(!wanted.contains(&sample) || found.insert(sample));
        }
    }
    assert_eq!(found.len(), wanted.len());
}
