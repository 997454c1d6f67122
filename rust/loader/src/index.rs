//! Shards → where every sample lies: read once at opening, in parallel.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use crate::sample::{Grouper, Sample, SampleId};
use crate::tar::TarReader;

/// A shard and the samples in it, in the order of the file.
#[derive(Debug)]
pub struct Shard {
    /// Where it lies.
    pub path: PathBuf,
    /// Its samples.
    pub samples: Vec<Sample>,
}

type ShardResult = Result<Vec<Sample>, Error>;

/// All samples of a list of shards.
#[derive(Debug)]
pub struct Index {
    shards: Vec<Shard>,
    /// Samples of each shard.
    counts: Vec<u32>,
}

impl Index {
    /// Reads the headers of all shards with `threads` threads; setting `cancelled` ends it early.
    ///
    /// # Errors
    /// A shard cannot be opened or is damaged (of several the one that stands first), or it was cancelled.
    pub fn open(
        paths: Vec<PathBuf>,
        threads: usize,
        cancelled: &AtomicBool,
    ) -> Result<Self, Error> {
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<ShardResult>>> =
            Mutex::new(std::iter::repeat_with(|| None).take(paths.len()).collect());
        let work = || {
            while !cancelled.load(Ordering::Relaxed) {
                let shard = next.fetch_add(1, Ordering::Relaxed);
                let Some(path) = paths.get(shard) else { return };
                let result = read_shard(path);
                let failed = result.is_err();
                results.lock().unwrap_or_else(PoisonError::into_inner)[shard] = Some(result);
                if failed {
                    // No shard behind this one matters any more, those before it are already taken.
                    next.store(paths.len(), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(paths.len()) {
                scope.spawn(work);
            }
            work();
        });
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut samples = Vec::with_capacity(results.len());
        for result in results {
            // Only a shard that was never begun has no result: behind a failure, or after a cancellation.
            samples.push(result.ok_or(Error::Closed)??);
        }
        let shards = paths
            .into_iter()
            .zip(samples)
            .map(|(path, samples)| Shard { path, samples });
        Ok(Self::from_shards(shards.collect()))
    }

    /// An index of known shards.
    #[must_use]
    pub fn from_shards(shards: Vec<Shard>) -> Self {
        // More samples than a u32 counts would need headers of four terabytes.
        let count = |shard: &Shard| u32::try_from(shard.samples.len()).unwrap_or(u32::MAX);
        let counts = shards.iter().map(count).collect();
        Self { shards, counts }
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

    /// A sample.
    ///
    /// # Panics
    /// If there is no such sample.
    #[must_use]
    pub fn sample(&self, id: SampleId) -> &Sample {
        &self.shards[id.shard as usize].samples[id.sample as usize]
    }
}

/// The samples of one shard.
///
/// # Errors
/// The shard cannot be opened or is damaged; the error says where.
pub fn read_shard(path: &Path) -> Result<Vec<Sample>, Error> {
    let file = File::open(path).map_err(|source| Error::Open {
        shard: path.to_owned(),
        source,
    })?;
    let place = |(offset, source)| Error::Tar {
        shard: path.to_owned(),
        offset,
        source,
    };
    let mut reader = TarReader::new(&file).map_err(place)?;
    let (mut grouper, mut samples) = (Grouper::default(), Vec::new());
    while let Some(member) = reader.next_member().map_err(place)? {
        samples.extend(grouper.push(&member));
    }
    samples.extend(grouper.finish());
    samples.shrink_to_fit();
    Ok(samples)
}
