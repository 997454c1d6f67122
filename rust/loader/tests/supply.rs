//! A run whose shards come from elsewhere: late, in any order, or never.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Content, config, next, open, read_all, write_shards};
use prolip_loader::config::{LastBatch, LoaderConfig, OnMissingShard};
use prolip_loader::error::Error;
use prolip_loader::loader::Loader;
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{Next, Pipeline};
use prolip_loader::supply::Supply;

type Wake = Box<dyn Fn() + Send + Sync>;

/// Shards that are there when the test says so.
#[derive(Default)]
struct Fake {
    state: Mutex<State>,
    wake: Mutex<Option<Wake>>,
    /// Whether whatever is announced is there at once.
    prompt: bool,
}

#[derive(Default, Debug)]
struct State {
    announced: Vec<u32>,
    ready: BTreeSet<u32>,
    asked_unannounced: bool,
    closed: bool,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.state.lock().unwrap().fmt(formatter)
    }
}

impl Fake {
    fn bring(&self, shard: u32) {
        self.state.lock().unwrap().ready.insert(shard);
        self.wake();
    }

    fn wake(&self) {
        if let Some(wake) = &*self.wake.lock().unwrap() {
            wake();
        }
    }

    fn announced(&self) -> Vec<u32> {
        self.state.lock().unwrap().announced.clone()
    }
}

impl Supply for Fake {
    fn announce(&self, shards: &[u32]) {
        let mut state = self.state.lock().unwrap();
        state.announced.extend(shards);
        if self.prompt {
            state.ready.extend(shards);
        }
        drop(state);
        if self.prompt {
            // From within a call: this must not hang.
            self.wake();
        }
    }

    fn is_ready(&self, shard: u32) -> bool {
        let mut state = self.state.lock().unwrap();
        state.asked_unannounced |= !state.announced.contains(&shard);
        state.ready.contains(&shard)
    }

    fn length(&self, _: u32) -> Option<Result<u64, Error>> {
        None
    }

    fn release(&self, shard: u32) {
        self.state.lock().unwrap().ready.remove(&shard);
    }

    fn on_change(&self, wake: Wake) {
        *self.wake.lock().unwrap() = Some(wake);
    }

    fn close(&self) {
        self.state.lock().unwrap().closed = true;
    }
}

fn start(loader: &Arc<Loader>, fake: &Arc<Fake>) -> Pipeline {
    let supply: Arc<dyn Supply> = Arc::<Fake>::clone(fake);
    Pipeline::start_with(Arc::clone(loader), supply, &Cursor::default()).unwrap()
}

/// All batches; `idle` is called whenever none is there.
fn read(
    loader: &Arc<Loader>,
    fake: &Arc<Fake>,
    mut idle: impl FnMut(&Fake),
) -> Result<Vec<Content>, Arc<Error>> {
    let (pipeline, mut contents) = (start(loader, fake), Vec::new());
    for _ in 0..20_000 {
        match pipeline.next_within(Duration::from_millis(1))? {
            Next::Batch(batch) => contents.push(Content::new(&batch, loader)),
            Next::End => return Ok(contents),
            Next::Waiting => idle(fake),
        }
    }
    panic!("the run does not end");
}

#[test]
fn batches_are_those_of_local_files_however_late_the_shards_come() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[7, 3, 9, 5, 4]);
    for (num_threads, prefetch_batches) in [(1, 1), (3, 2), (4, 20)] {
        let config = LoaderConfig {
            num_threads,
            prefetch_batches,
            ..config(folder.path())
        };
        let loader = open(config, 0, 1).unwrap();
        let expected = read_all(&loader, Cursor::default()).unwrap();
        let prompt = Arc::new(Fake {
            prompt: true,
            ..Fake::default()
        });
        assert_eq!(read(&loader, &prompt, |_| {}).unwrap(), expected);
        // One shard at a time, the one that is asked for last comes first.
        let late = Arc::new(Fake::default());
        let last_first = |fake: &Fake| {
            let state = fake.state.lock().unwrap();
            let missing = |shard: &&u32| !state.ready.contains(shard);
            let shard = state.announced.iter().rev().find(missing).copied();
            drop(state);
            if let Some(shard) = shard {
                fake.bring(shard);
            }
        };
        assert_eq!(read(&loader, &late, last_first).unwrap(), expected);
        // Shards that nobody asked for are of no use.
        let mut unasked = (0..5).rev().cycle();
        let early = Arc::new(Fake::default());
        let out_of_order = |fake: &Fake| fake.bring(unasked.next().unwrap());
        assert_eq!(read(&loader, &early, out_of_order).unwrap(), expected);
        for fake in [prompt, late, early] {
            let state = fake.state.lock().unwrap();
            assert!(state.closed && !state.asked_unannounced, "{state:?}");
        }
    }
}

#[test]
fn no_batch_is_begun_before_all_its_shards_are_there() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[3, 5]);
    let config = LoaderConfig {
        shuffle_window: 0,
        last_batch: LastBatch::Keep,
        num_epochs: Some(1),
        mask: None,
        ..config(folder.path())
    };
    let loader = open(config, 0, 1).unwrap();
    let fake = Arc::new(Fake::default());
    let pipeline = start(&loader, &fake);
    // Three samples of the first batch lie in the first shard, one in the second.
    fake.bring(0);
    let waiting = |pipeline: &Pipeline| {
        matches!(
            pipeline.next_within(Duration::from_millis(50)).unwrap(),
            Next::Waiting
        )
    };
    assert!(waiting(&pipeline));
    assert_eq!(pipeline.stats().tally.tried, 0);
    fake.bring(1);
    let samples = std::iter::from_fn(|| next(&pipeline).unwrap()).map(|batch| batch.samples.len());
    assert_eq!(samples.sum::<usize>(), 8);
}

#[test]
fn a_run_that_waits_for_a_shard_can_be_closed_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[4, 4, 4, 4]);
    let loader = open(config(folder.path()), 0, 1).unwrap();
    for closing in [true, false] {
        let fake = Arc::new(Fake::default());
        let pipeline = Arc::new(start(&loader, &fake));
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
        // A supply may live longer than the run that it was for.
        fake.bring(0);
    }
    assert_eq!(Arc::strong_count(&loader), 1);
}

#[test]
fn a_shard_that_is_missing_for_good_gives_bad_samples() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[20, 4]);
    let config = LoaderConfig {
        max_bad_fraction: 0.5,
        shuffle_window: 100,
        num_epochs: Some(1),
        on_missing_shard: OnMissingShard::Skip,
        ..config(folder.path())
    };
    let loader = open(config, 0, 1).unwrap();
    std::fs::remove_file(folder.path().join("001.tar")).unwrap();
    let fake = Arc::new(Fake {
        prompt: true,
        ..Fake::default()
    });
    let pipeline = start(&loader, &fake);
    let mut batches = 0;
    while let Some(batch) = next(&pipeline).unwrap() {
        assert!(batch.samples.iter().all(|sample| sample.shard == 0));
        batches += 1;
    }
    assert_eq!(batches, 6);
    let tally = pipeline.stats().tally;
    assert!(tally.bad.iter().sum::<u64>() >= 4);
    assert!(tally.first[0].contains("001.tar"), "{:?}", tally.first);
}
