//! A run whose shards arrive late, in any order, or not at all.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{config, next, open, read_all, write_shards};
use crate::fake::{Fake, read, start};
use prolip_loader::config::{LastBatch, LoaderConfig, OnMissingShard};
use prolip_loader::error::Error;
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{Next, Pipeline};

#[test]
fn late_shards_give_the_batches_of_local_files() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[7, 3, 9, 5, 4]);
    for (num_threads, prefetch_batches) in [(1, 1), (3, 2), (4, 20)] {
        let config = LoaderConfig { num_threads, prefetch_batches, ..config(folder.path()) };
        let dataset = open(config, 0, 1).unwrap();
        let expected = read_all(&dataset, Cursor::default()).unwrap();
        let prompt = Arc::new(Fake { prompt: true, ..Fake::default() });
        assert_eq!(read(&dataset, &prompt, |_| {}).unwrap(), expected);
        // One shard arrives at a time, the last announced one first.
        let late = Arc::new(Fake::default());
        assert_eq!(read(&dataset, &late, Fake::bring_last).unwrap(), expected);
        // Shards arrive that were not announced.
        let mut unasked = (0..5).rev().cycle();
        let early = Arc::new(Fake::default());
        let out_of_order = |fake: &Fake| fake.bring(unasked.next().unwrap());
        assert_eq!(read(&dataset, &early, out_of_order).unwrap(), expected);
        for fake in [prompt, late, early] {
            let state = fake.state.lock().unwrap();
            assert!(state.closed && state.wrong.is_empty(), "{state:?}");
        }
    }
}

#[test]
fn a_batch_starts_only_when_all_its_shards_are_there() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[3, 5]);
    let config = LoaderConfig {
        shuffle_window: 0,
        last_batch: LastBatch::Keep,
        num_epochs: Some(1),
        mask: None,
        ..config(folder.path())
    };
    let dataset = open(config, 0, 1).unwrap();
    let fake = Arc::new(Fake::default());
    let pipeline = start(&dataset, &fake);
    // The first batch has three samples of the first shard and one of the second.
    fake.bring(0);
    let waiting = |pipeline: &Pipeline| {
        matches!(pipeline.next_within(Duration::from_millis(50)).unwrap(), Next::Waiting)
    };
    assert!(waiting(&pipeline));
    assert_eq!(pipeline.stats().bad_samples.tried, 0);
    fake.bring(1);
    let samples = std::iter::from_fn(|| next(&pipeline).unwrap()).map(|batch| batch.samples.len());
    assert_eq!(samples.sum::<usize>(), 8);
}

#[test]
fn a_run_waiting_for_a_shard_can_be_closed_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[4, 4, 4, 4]);
    let dataset = open(config(folder.path()), 0, 1).unwrap();
    for closing in [true, false] {
        let fake = Arc::new(Fake::default());
        let pipeline = Arc::new(start(&dataset, &fake));
        while fake.announced().is_empty() {
            std::thread::yield_now();
        }
        let reader = closing.then(|| {
            let pipeline = Arc::clone(&pipeline);
            std::thread::spawn(move || next(&pipeline).unwrap_err())
        });
        if closing {
            pipeline.close();
        }
        if let Some(reader) = reader {
            assert!(matches!(&*reader.join().unwrap(), Error::Closed));
        }
        drop(pipeline);
        assert!(fake.state.lock().unwrap().closed);
        // A provider may live longer than its run.
        fake.bring(0);
    }
    assert_eq!(Arc::strong_count(&dataset), 1);
}

#[test]
fn a_missing_shard_gives_bad_samples() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[20, 4]);
    let config = LoaderConfig {
        max_bad_fraction: 0.5,
        shuffle_window: 100,
        num_epochs: Some(1),
        on_missing_shard: OnMissingShard::Skip,
        ..config(folder.path())
    };
    let dataset = open(config, 0, 1).unwrap();
    std::fs::remove_file(folder.path().join("001.tar")).unwrap();
    let fake = Arc::new(Fake { prompt: true, ..Fake::default() });
    let pipeline = start(&dataset, &fake);
    let mut batches = 0;
    while let Some(batch) = next(&pipeline).unwrap() {
        assert!(batch.samples.iter().all(|sample| sample.shard == 0));
        batches += 1;
    }
    assert_eq!(batches, 6);
    let bad_samples = pipeline.stats().bad_samples;
    assert!(bad_samples.by_reason.iter().sum::<u64>() >= 4);
    assert!(bad_samples.examples[0].contains("001.tar"), "{:?}", bad_samples.examples);
}

#[test]
fn shards_are_requested_ahead_and_released_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[2; 90]);
    for (window, last_batch) in [(3, LastBatch::Drop), (0, LastBatch::Keep), (16, LastBatch::Pad)] {
        let config = LoaderConfig {
            shuffle_window: window,
            last_batch,
            batch_size: 7,
            ..config(folder.path())
        };
        let dataset = open(config, 0, 1).unwrap();
        let expected = read_all(&dataset, Cursor::default()).unwrap();
        let late = Arc::new(Fake::default());
        assert_eq!(read(&dataset, &late, Fake::bring_last).unwrap(), expected);
        let state = late.state.lock().unwrap();
        assert!(state.wrong.is_empty(), "{:?}", state.wrong);
        // Two epochs of 90 shards. Held are those ahead and those of the prefetched batches. Without shuffling, a window
        // has 1024 samples, so nearly all shards.
        let limit = if window == 0 { 90 } else { 32 + 4 * 12 };
        assert!(state.most_held >= 32 && state.most_held <= limit, "{}", state.most_held);
        assert!(window == 0 || state.released + limit >= 180, "{}", state.released);
    }
}
