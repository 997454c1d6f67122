//! Whole loaders on random shards and selections: each sample once per epoch, and the same batches for any ranks and threads and wherever a
//! run stops.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::common::{archive, config, member, next, open_chosen, png};
use prolip_loader::config::{LastBatch, LoaderConfig};
use prolip_loader::error::Error;
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{Pipeline, Selection};
use prolip_loader::shards::{Chosen, Location, SampleId};
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

/// Samples of the largest shard; there is one of each size from 0.
const LARGEST: usize = 9;

/// One run of a rank, or of all.
#[derive(Debug, Clone, Copy)]
struct Crew {
    ranks: usize,
    batch_size: usize,
    threads: usize,
    prefetch: usize,
}

const ONE: Crew = Crew { ranks: 1, batch_size: 1, threads: 1, prefetch: 1 };

#[derive(Debug, Clone)]
struct Case {
    sizes: Vec<usize>,
    /// The rows that are read of each shard; `None` for all.
    chosen: Option<Vec<Vec<u32>>>,
    indexed: bool,
    window: usize,
    seed: u64,
    last_batch: LastBatch,
}

/// A batch: its samples, its pixels, and where a run resumes after it.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    samples: Vec<SampleId>,
    pixels: Vec<u8>,
    cursor: Cursor,
}

/// A folder with a shard of each size. A sample's key is its place in the shard.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let write = || {
        let folder = tempfile::tempdir().unwrap();
        for size in 0..=LARGEST {
            let sample = |place| member(&format!("{place}.png"), &png(2, 2, [place as u8, 7, 9]));
            let samples: Vec<Vec<u8>> = (0..size).map(sample).collect();
            std::fs::write(folder.path().join(format!("{size}.tar")), archive(&samples)).unwrap();
        }
        crate::index::make(folder.path());
        folder
    };
    FOLDER.get_or_init(write).path()
}

impl Case {
    fn total(&self) -> usize {
        self.rows().iter().map(Vec::len).sum()
    }

    fn rows(&self) -> Vec<Vec<u32>> {
        let all = || self.sizes.iter().map(|&size| (0..size as u32).collect()).collect();
        self.chosen.clone().unwrap_or_else(all)
    }

    fn selection(&self) -> Option<Selection> {
        let chosen = |rows: &Vec<u32>| Chosen { stamp: String::new(), rows: rows[..].into() };
        let chosen = self.chosen.as_ref()?.iter().map(chosen).collect();
        let sources = self.config(ONE).shards.iter().map(|path| Location::of(path)).collect();
        Some((sources, chosen))
    }

    fn config(&self, crew: Crew) -> LoaderConfig {
        let path = |size| format!("{}/{size}.tar", folder().display());
        LoaderConfig {
            shards: self.sizes.iter().map(path).collect(),
            index: self.indexed.then(|| format!("{}/shards.index", folder().display())),
            batch_size: crew.batch_size,
            image_size: [1; 2],
            captions: Vec::new(),
            mask: None,
            keep_members: Vec::new(),
            seed: self.seed,
            num_epochs: Some(1),
            shuffle_window: self.window,
            last_batch: self.last_batch,
            num_threads: crew.threads,
            prefetch_batches: crew.prefetch,
            ..config(folder())
        }
    }

    fn read(&self, crew: Crew, rank: usize, from: &Cursor) -> Vec<Shown> {
        let dataset = match open_chosen(self.config(crew), self.selection(), rank, crew.ranks) {
            Ok(dataset) => dataset,
            // There are fewer samples than a step needs, or none.
            Err(Error::Config(_) | Error::NoSample(_)) => return Vec::new(),
            Err(error) => panic!("{error}"),
        };
        dataset.check_cursor(from).unwrap();
        let pipeline = Pipeline::start(Arc::clone(&dataset), from, None).unwrap();
        let mut shown = Vec::new();
        while let Some(batch) = next(&pipeline).unwrap() {
            let arrays = &batch.lease.arrays;
            for ((sample, key), row) in batch.samples.iter().zip(&arrays.keys).zip(&arrays.rows) {
                assert_eq!(*key, row.to_string());
                assert_eq!(*row, self.rows()[sample.shard as usize][sample.sample as usize]);
            }
            let bytes = batch.samples.len() * batch.row_patches * dataset.config.form().bytes();
            shown.push(Shown {
                samples: batch.samples.clone(),
                pixels: batch.lease.arrays.images[..bytes].to_vec(),
                cursor: batch.cursor.clone(),
            });
        }
        shown
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let shard = (0..=LARGEST).prop_flat_map(|size| {
        let rows = prop::collection::vec(0..size.max(1) as u32, 0..=size);
        (Just(size), rows)
    });
    let shards = (prop::collection::vec(shard, 1..6), any::<bool>(), any::<bool>());
    let windows = prop_oneof![Just(0usize), 1usize..12, Just(10_000)];
    let kinds = prop_oneof![Just(LastBatch::Drop), Just(LastBatch::Pad), Just(LastBatch::Keep)];
    (shards, windows, any::<u64>(), kinds).prop_map(|(shards, window, seed, last_batch)| {
        let (shards, selected, indexed) = shards;
        let (sizes, mut chosen): (Vec<usize>, Vec<Vec<u32>>) = shards.into_iter().unzip();
        chosen.iter_mut().for_each(|rows| rows.sort_unstable());
        Case { sizes, chosen: selected.then_some(chosen), indexed, window, seed, last_batch }
    })
}

fn crews() -> impl Strategy<Value = Crew> {
    (1usize..4, 1usize..5, 1usize..4, 1usize..4).prop_map(
        |(ranks, batch_size, threads, prefetch)| Crew { ranks, batch_size, threads, prefetch },
    )
}

/// `PROLIP_CASES`, which CI sets to 10,000, or a number that takes seconds.
fn num_cases() -> u32 {
    let said = std::env::var("PROLIP_CASES").ok();
    said.and_then(|cases| cases.parse().ok()).unwrap_or(500)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(num_cases()))]

    #[test]
    fn each_sample_is_read_once_also_after_resuming_with_other_ranks(
        case in cases(), before in crews(), stop in any::<Index>(), after in crews(), threads in 1usize..5
    ) {
        let start = Cursor::default();
        let begun: Vec<Vec<Shown>> = (0..before.ranks).map(|rank| case.read(before, rank, &start)).collect();
        let longest = begun.iter().max_by_key(|shown| shown.len()).unwrap();
        let steps = stop.index(longest.len() + 1);
        let cursor = steps.checked_sub(1).map_or_else(Cursor::default, |last| longest[last].cursor.clone());
        let rest: Vec<Vec<Shown>> = (0..after.ranks).map(|rank| case.read(after, rank, &cursor)).collect();

        let used = begun.iter().flat_map(|shown| shown.iter().take(steps)).chain(rest.iter().flatten());
        let mut counts: BTreeMap<SampleId, usize> = BTreeMap::new();
        for &sample in used.flat_map(|shown| &shown.samples) {
            *counts.entry(sample).or_default() += 1;
        }
        let once = counts.values().all(|&count| count == 1);
        match case.last_batch {
            LastBatch::Drop => {
                prop_assert!(once);
                prop_assert!(case.total() - counts.len() < after.ranks * after.batch_size);
            }
            LastBatch::Keep => prop_assert!(once && counts.len() == case.total()),
            LastBatch::Pad => prop_assert_eq!(counts.len(), case.total()),
        }
        if case.last_batch != LastBatch::Keep {
            prop_assert!(rest.iter().all(|shown| shown.len() == rest[0].len()));
            prop_assert!(rest.iter().flatten().all(|shown| shown.samples.len() == after.batch_size));
        }

        // With the same ranks and other threads, the rest of the run is the same.
        let others = Crew { threads, ..before };
        let rank = steps % before.ranks;
        let again = case.read(others, rank, &cursor);
        prop_assert_eq!(&again[..], begun[rank].get(steps..).unwrap_or_default());
    }
}
