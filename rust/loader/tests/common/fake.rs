//! A provider whose shards become ready when a test says so.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prolip_loader::archive::scan;
use prolip_loader::archive::tar::FileSource;
use prolip_loader::error::{Error, FetchError};
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{Dataset, Next, Pipeline};
use prolip_loader::remote::{ReadyShard, ShardProvider};

use crate::common::Content;

type Wake = Box<dyn Fn() + Send + Sync>;

/// Shards that are ready when the test says so.
#[derive(Default)]
pub struct Fake {
    pub state: Mutex<State>,
    pub wake: Mutex<Option<Wake>>,
    /// Whether announced shards are ready at once.
    pub prompt: bool,
    /// Whether reading a shard panics.
    pub panics: bool,
    /// Folder of the shards, for lists of addresses.
    pub folder: PathBuf,
}

#[derive(Default, Debug)]
pub struct State {
    /// All announcements in order, repeated ones too.
    pub announced: Vec<u32>,
    pub held: BTreeSet<u32>,
    pub ready: BTreeSet<u32>,
    pub known: BTreeSet<u32>,
    pub released: usize,
    pub wrong: Vec<String>,
    pub closed: bool,
}

impl State {
    fn request(&mut self, shards: &[u32]) {
        for &shard in shards {
            self.announced.push(shard);
            if !self.held.insert(shard) {
                self.wrong.push(format!("{shard} announced twice"));
            }
        }
    }
}

impl Fake {
    pub fn bring(&self, shard: u32) {
        let mut state = self.state.lock().unwrap();
        state.ready.insert(shard);
        state.known.insert(shard);
        drop(state);
        self.wake();
    }

    /// Makes the shard ready that was announced last, of those that are not ready.
    pub fn bring_last(&self) {
        let state = self.state.lock().unwrap();
        let missing = |shard: &&u32| state.held.contains(shard) && !state.ready.contains(shard);
        let shard = state.announced.iter().rev().find(missing).copied();
        drop(state);
        if let Some(shard) = shard {
            self.bring(shard);
        }
    }

    fn shard(&self, shard: u32) -> ReadyShard {
        let file = File::open(self.folder.join(format!("{shard:03}.tar"))).unwrap();
        let scan = scan(FileSource::new(&file).unwrap(), true).unwrap();
        ReadyShard { file: Arc::new(file), regions: Some(Arc::new(scan.regions)) }
    }

    pub fn wake(&self) {
        if let Some(wake) = &*self.wake.lock().unwrap() {
            wake();
        }
    }

    pub fn announced(&self) -> Vec<u32> {
        self.state.lock().unwrap().announced.clone()
    }
}

impl ShardProvider for Fake {
    fn request(&self, shards: &[u32]) {
        let mut state = self.state.lock().unwrap();
        state.request(shards);
        if self.prompt {
            state.ready.extend(shards);
            state.known.extend(shards);
        }
        drop(state);
        if self.prompt {
            // Called within a call of the run: this must not hang.
            self.wake();
        }
    }

    fn is_ready(&self, shard: u32) -> bool {
        let mut state = self.state.lock().unwrap();
        if !state.held.contains(&shard) {
            state.wrong.push(format!("asked for {shard}, which is not announced"));
        }
        state.ready.contains(&shard)
    }

    fn length(&self, shard: u32) -> Option<Result<u64, Error>> {
        let known = self.state.lock().unwrap().known.contains(&shard);
        known.then(|| Ok(self.shard(shard).regions.unwrap().len() as u64))
    }

    fn get(&self, shard: u32) -> Result<Option<ReadyShard>, FetchError> {
        assert!(!self.panics, "as it is meant to");
        let mut state = self.state.lock().unwrap();
        // A shard that came without being announced may have been released meanwhile.
        if !state.held.contains(&shard) {
            state.wrong.push(format!("{shard} read and not held"));
        }
        drop(state);
        let elsewhere = !self.folder.as_os_str().is_empty();
        Ok(elsewhere.then(|| self.shard(shard)))
    }

    fn release(&self, shard: u32) {
        let mut state = self.state.lock().unwrap();
        state.ready.remove(&shard);
        state.released += 1;
        if !state.held.remove(&shard) {
            state.wrong.push(format!("{shard} released and not held"));
        }
    }

    fn on_change(&self, wake: Wake) {
        *self.wake.lock().unwrap() = Some(wake);
    }

    fn close(&self) {
        self.state.lock().unwrap().closed = true;
    }
}

pub fn start(dataset: &Arc<Dataset>, fake: &Arc<Fake>) -> Pipeline {
    start_at(dataset, fake, &Cursor::default())
}

pub fn start_at(dataset: &Arc<Dataset>, fake: &Arc<Fake>, from: &Cursor) -> Pipeline {
    let provider: Arc<dyn ShardProvider> = Arc::<Fake>::clone(fake);
    Pipeline::start_with(Arc::clone(dataset), Some(provider), from, None).unwrap()
}

/// All batches. `idle` is called whenever no batch is ready.
pub fn read(
    dataset: &Arc<Dataset>,
    fake: &Arc<Fake>,
    idle: impl FnMut(&Fake),
) -> Result<Vec<Content>, Arc<Error>> {
    read_from(dataset, fake, &Cursor::default(), idle)
}

pub fn read_from(
    dataset: &Arc<Dataset>,
    fake: &Arc<Fake>,
    from: &Cursor,
    mut idle: impl FnMut(&Fake),
) -> Result<Vec<Content>, Arc<Error>> {
    let (pipeline, mut contents) = (start_at(dataset, fake, from), Vec::new());
    for _ in 0..20_000 {
        match pipeline.next_within(Duration::from_millis(1))? {
            Next::Batch(batch) => contents.push(Content::new(&batch, dataset)),
            Next::End => return Ok(contents),
            Next::Waiting => idle(fake),
        }
    }
    panic!("the run does not end");
}
