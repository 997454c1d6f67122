//! Shards → how many samples they hold, and where those lie: read once at opening, or taken from an index file.

mod regions;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use regions::{Regions, Scan, scan};

use crate::config::OnMissingShard;
use crate::error::Error;
use crate::location::Location;
use crate::read::open_shard;
use crate::tar::FileSource;

/// A shard of the list.
#[derive(Debug)]
pub struct Shard {
    /// Where it lies.
    pub location: Location,
    regions: Arc<Regions>,
}

/// All samples of a list of shards.
#[derive(Debug, Default)]
pub struct Index {
    shards: Vec<Shard>,
    /// Samples of each shard.
    counts: Vec<u32>,
    notes: Vec<String>,
}

impl Index {
    /// Reads the headers of all shards with `threads` threads; setting `cancelled` ends it early.
    ///
    /// # Errors
    /// A shard cannot be opened or is no archive (of several the one that stands first), or it was cancelled. With
    /// [`OnMissingShard::Skip`] such shards are left out.
    pub fn open(
        shards: Vec<Location>,
        missing: OnMissingShard,
        threads: usize,
        cancelled: &AtomicBool,
    ) -> Result<Self, Error> {
        let skip = missing == OnMissingShard::Skip;
        let scan = |shard: usize| {
            let result = scan_shard(&shards[shard]);
            let stop = result
                .as_ref()
                .is_err_and(|error| !skip || !error.is_shards());
            (result, stop)
        };
        let scans = in_parallel(shards.len(), threads, cancelled, scan);
        let mut index = Self::default();
        for (location, scan) in shards.into_iter().zip(scans) {
            // Only a shard that was never begun has no result: behind a failure, or after a cancellation.
            match scan.ok_or(Error::Closed)? {
                Ok(scan) => {
                    if let Some(damage) = &scan.damage {
                        index.notes.push(format!(
                            "shard {location}, byte {}: {}; the samples before are used",
                            damage.at, damage.error
                        ));
                    }
                    index.push(location, scan.regions);
                }
                Err(error) if skip && error.is_shards() => {
                    index.notes.push(format!("{error}; it is left out"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(index)
    }

    fn push(&mut self, location: Location, regions: Regions) {
        self.counts.push(regions.len() as u32);
        self.shards.push(Shard {
            location,
            regions: Arc::new(regions),
        });
    }

    /// Number of samples.
    #[must_use]
    pub fn num_samples(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    /// Samples of each shard.
    #[must_use]
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// The shards, in the order of the list.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Shards that were left out, and shards that are damaged, each in a sentence.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where a shard's samples lie.
    #[must_use]
    pub fn regions(&self, shard: u32) -> Arc<Regions> {
        Arc::clone(&self.shards[shard as usize].regions)
    }
}

/// The samples of one shard.
///
/// # Errors
/// The shard cannot be opened or is no archive; the error says where.
pub fn scan_shard(location: &Location) -> Result<Scan, Error> {
    let file = open_shard(location).map_err(|source| Error::Open {
        shard: location.clone(),
        source,
    })?;
    let place = |(offset, source)| Error::Tar {
        shard: location.clone(),
        offset,
        source,
    };
    let source = FileSource::new(&file).map_err(|error| place((0, error.into())))?;
    scan(source).map_err(|damage| place((damage.at, damage.error)))
}

/// Does `count` pieces of work with `threads` threads. Where one says that no more is needed, those behind it may have no
/// result; those before it have theirs.
fn in_parallel<T: Send>(
    count: usize,
    threads: usize,
    cancelled: &AtomicBool,
    work: impl Fn(usize) -> (T, bool) + Sync,
) -> Vec<Option<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::from_iter(std::iter::repeat_with(|| None).take(count)));
    let work = || {
        while !cancelled.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let (result, stop) = work(number);
            results.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(result);
            if stop {
                // Nothing behind this one matters any more; those before it are already taken.
                next.store(count, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            scope.spawn(work);
        }
        work();
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}
