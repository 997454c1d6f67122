//! A run over shards of unknown length, which are read as they are downloaded.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{config, open, write_shards};
use crate::fake::{Fake, read, read_from};
use prolip_loader::config::{LastBatch, LoaderConfig};
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
