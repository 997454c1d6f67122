//! A run over shards of unknown length, which are read as they are downloaded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{config, next, open, write_shards};
use crate::fake::{Fake, read, read_from, start};
use prolip_loader::config::{LastBatch, LoaderConfig, OnMissingShard};
use prolip_loader::order::{Cursor, Leg};
use prolip_loader::pipeline::Dataset;

/// A loader of addresses, whose shards are in a folder.
fn remote(
    folder: &tempfile::TempDir,
    sizes: &[usize],
    change: impl Fn(&mut LoaderConfig),
) -> Arc<Dataset> {
    write_shards(folder.path(), sizes);
    let pattern = format!("http://nowhere.invalid/{{000..{:03}}}.tar", sizes.len() - 1);
    let mut config = LoaderConfig { shards: vec![pattern], ..config(folder.path()) };
    change(&mut config);
    open(config, 0, 1).unwrap()
}

#[test]
fn shards_of_unknown_length_are_read_and_resumed_at_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = [5, 0, 7, 3, 9, 1, 4, 6, 2, 8, 5, 5];
    let provider =
        |prompt| Arc::new(Fake { prompt, folder: folder.path().to_owned(), ..Fake::default() });
    for (last_batch, num_samples, steps) in [
        (LastBatch::Drop, Some(53), 13),
        (LastBatch::Pad, Some(70), 18),
        (LastBatch::Keep, None, 14),
    ] {
        let dataset = remote(&folder, &sizes, |config| {
            (config.last_batch, config.num_samples) = (last_batch, num_samples);
        });
        let late = provider(false);
        let whole = read(&dataset, &late, Fake::bring_last).unwrap();
        assert_eq!(whole.len(), 2 * steps);
        if last_batch == LastBatch::Keep {
            let first = whole.iter().filter(|batch| batch.cursor.epoch == 0);
            let keys: BTreeSet<&String> = first.flat_map(|batch| &batch.keys).collect();
            assert_eq!(keys.len(), sizes.iter().sum::<usize>());
            assert_eq!(dataset.num_batches(), None);
        } else {
            assert_eq!(dataset.num_batches(), Some(steps as u64));
        }
        let prompt = provider(true);
        assert_eq!(read(&dataset, &prompt, |_| {}).unwrap(), whole);
        for checked in [&late, &prompt] {
            let state = checked.state.lock().unwrap();
            assert!(state.wrong.is_empty(), "{:?}", state.wrong);
            // The number depends on timing, because shards that the next epoch has announced are kept. It is at least this.
            assert!(state.released >= 12, "{}", state.released);
        }
        for stop in [0, 3, whole.len() / 2, whole.len() - 2] {
            let cursor = &whole[stop].cursor;
            dataset.check_cursor(cursor).unwrap();
            let resumed = provider(false);
            let rest = read_from(&dataset, &resumed, cursor, Fake::bring_last).unwrap();
            assert_eq!(rest, whole[stop + 1..]);
            assert!(resumed.state.lock().unwrap().wrong.is_empty());
        }
    }
}

#[test]
fn the_next_epochs_first_shards_are_requested_in_advance() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = remote(&folder, &[4; 30], |config| {
        (config.last_batch, config.prefetch_batches) = (LastBatch::Keep, 1);
    });
    let fake = Arc::new(Fake { prompt: true, folder: folder.path().to_owned(), ..Fake::default() });
    let pipeline = start(&dataset, &fake);
    for _ in 0..29 {
        assert_eq!(next(&pipeline).unwrap().unwrap().cursor.epoch, 0);
    }
    // The last batch is ready. No batch of the next epoch begins before it is taken.
    while pipeline.stats().ready == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(fake.announced().len() > 30, "{:?}", fake.announced());
    assert_eq!(next(&pipeline).unwrap().unwrap().cursor.epoch, 0);
    assert_eq!(next(&pipeline).unwrap().unwrap().cursor.epoch, 1);
}

#[test]
fn a_missing_shard_of_unknown_length_is_an_error_or_one_bad_sample() {
    let folder = tempfile::tempdir().unwrap();
    let run = |on_missing_shard, full| {
        let dataset = remote(&folder, &[5, 6, 7, 3], |config| {
            (config.last_batch, config.num_epochs) = (LastBatch::Keep, Some(1));
            (config.shuffle_window, config.on_missing_shard) = (0, on_missing_shard);
            config.max_bad_fraction = 0.5;
        });
        let fake = Arc::new(Fake {
            missing: Some(2),
            full,
            prompt: true,
            folder: folder.path().to_owned(),
            ..Fake::default()
        });
        read(&dataset, &fake, |_| {})
    };
    let batches = run(OnMissingShard::Skip, false).unwrap();
    let keys: Vec<String> = batches.into_iter().flat_map(|batch| batch.keys).collect();
    assert_eq!(keys.len(), 5 + 6 + 3);
    assert!(keys.iter().all(|key| !key.starts_with("s2")));
    // A full disk is not the fault of a shard.
    for (on_missing_shard, full) in [(OnMissingShard::Raise, false), (OnMissingShard::Skip, true)] {
        let error = run(on_missing_shard, full).unwrap_err().to_string();
        assert_eq!(error, "shard 002.tar: it is not there");
    }
}

#[test]
fn settings_that_need_unknown_lengths_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = LoaderConfig {
        shards: vec!["http://nowhere.invalid/{0..3}.tar".to_owned()],
        ..config(folder.path())
    };
    let error = open(config.clone(), 0, 1).unwrap_err().to_string();
    let expected = "num_samples: some shards have unknown lengths";
    assert!(error.starts_with(expected), "{error}");
    let known = LoaderConfig { num_samples: Some(100), ..config };
    let dataset = open(known, 1, 2).unwrap();
    let check = |ranks: &[u64]| {
        let leg = |&world_size| Leg { world_size, batch_size: 3, steps: 1 };
        let legs = ranks.iter().map(leg).collect();
        dataset.check_cursor(&Cursor { epoch: 0, legs })
    };
    assert!(check(&[2, 2]).is_ok());
    let error = check(&[2, 3]).unwrap_err().to_string();
    let expected = "resume.legs[1].world_size: must be 2";
    assert!(error.starts_with(expected), "{error}");
}
