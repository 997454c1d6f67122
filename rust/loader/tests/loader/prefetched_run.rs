//! A run whose shards arrive late, in any order, or not at all.

use std::sync::Arc;

use crate::common::{config, next, open, read_all, write_shards};
use crate::fake::{Fake, read, start};
use prolip_loader::config::LoaderConfig;
use prolip_loader::error::Error;
use prolip_loader::order::Cursor;

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
