//! A shard that takes long to open delays only the thread that needs it.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use common::{Content, config, open, read_all, write_shards};
use prolip_loader::config::LoaderConfig;
use prolip_loader::error::{Error, FetchError};
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{Next, Pipeline};
use prolip_loader::remote::{ReadyShard, ShardProvider};

/// Local files. The first one is opened only when the test says so.
#[derive(Debug, Default)]
struct Slow {
    released: Mutex<bool>,
    changed: Condvar,
}

impl ShardProvider for Slow {
    fn request(&self, _: &[u32]) {}

    fn is_ready(&self, _: u32) -> bool {
        true
    }

    fn length(&self, _: u32) -> Option<Result<u64, Error>> {
        None
    }

    fn get(&self, shard: u32) -> Result<Option<ReadyShard>, FetchError> {
        let released = self.released.lock().unwrap();
        drop(self.changed.wait_while(released, |released| shard == 0 && !*released));
        Ok(None)
    }

    fn release(&self, _: u32) {}

    fn on_change(&self, _: Box<dyn Fn() + Send + Sync>) {}

    fn close(&self) {}
}

#[test]
fn other_threads_continue_while_one_shard_is_slow() {
    let folder = tempfile::tempdir().unwrap();
    // The slow shard has one sample, which is shuffled among the others.
    write_shards(folder.path(), &[1, 30, 30]);
    for (num_threads, prefetch_batches) in [(2, 5), (4, 3)] {
        let config = LoaderConfig {
            num_threads,
            prefetch_batches,
            shuffle_window: 1000,
            num_epochs: Some(1),
            ..config(folder.path())
        };
        let dataset = open(config, 0, 1).unwrap();
        let expected = read_all(&dataset, Cursor::default()).unwrap();
        let stuck = expected
            .iter()
            .position(|batch| batch.keys.iter().any(|key| key.starts_with("s0-")))
            .unwrap();
        let slow = Arc::new(Slow::default());
        let provider: Arc<dyn ShardProvider> = Arc::<Slow>::clone(&slow);
        let run =
            Pipeline::start_with(Arc::clone(&dataset), Some(provider), &Cursor::default()).unwrap();
        let mut contents = Vec::new();
        let mut take = |within: u64| match run.next_within(Duration::from_millis(within)).unwrap() {
            Next::Batch(batch) => contents.push(Content::new(&batch, &dataset)),
            other => assert!(matches!(other, Next::Waiting), "the run ends early"),
        };
        // All batches before the stuck one come, and those after it that may begin are finished.
        (0..stuck).for_each(|_| take(20_000));
        let behind = (expected.len() - stuck - 1).min(prefetch_batches - 1) as u64;
        let begun = Instant::now();
        while run.stats().ready < behind {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", run.stats());
            std::thread::yield_now();
        }
        take(50);
        *slow.released.lock().unwrap() = true;
        slow.changed.notify_all();
        (stuck..expected.len()).for_each(|_| take(20_000));
        assert_eq!(contents, expected);
    }
}
