//! The index: how many samples the shards hold and where they are. Built from the headers, or read from an index
//! file.

mod file;
mod format;
mod lookup;
mod parallel;
mod scanner;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use file::{FileRange, IndexFile};
pub use file::{Summary, check_index, write_index};
pub use format::{Entry, HEAD, Head, parse_table};
use parallel::in_order;
use scanner::Scanner;

use crate::config::{OnMissingShard, StoreConfig};
use crate::error::{Error, IndexError};
use crate::shards::{Fingerprint, Location, Regions, Stamp, UNKNOWN_LENGTH};

#[derive(Debug)]
pub struct Shard {
    pub location: Location,
    /// Identifies the version of the shard that was indexed; `None` if it was not indexed.
    pub stamp: Option<Stamp>,
    place: RegionsAt,
}

impl Shard {
    /// The fingerprint of its contents, if known.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match &self.place {
            RegionsAt::Memory(regions) => Some(regions.fingerprint()),
            RegionsAt::File(range) => Some(range.fingerprint),
            RegionsAt::Arrival(fingerprint) => fingerprint.get().copied(),
        }
    }
}

#[derive(Debug)]
enum RegionsAt {
    Memory(Arc<Regions>),
    File(FileRange),
    /// They are found when the shard has been downloaded.
    Arrival(OnceLock<Fingerprint>),
}

/// All samples of a list of shards.
#[derive(Debug, Default)]
pub struct Index {
    shards: Vec<Shard>,
    /// Length of each shard, or [`UNKNOWN_LENGTH`].
    counts: Vec<u32>,
    file: Option<IndexFile>,
    notes: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct OpenOptions<'loader> {
    pub missing: OnMissingShard,
    /// Number of threads, at least 1.
    pub threads: usize,
    /// How remote and compressed shards are read.
    pub store: &'loader StoreConfig,
    pub cancelled: &'loader AtomicBool,
}

impl Index {
    /// Builds an index by reading the headers of all local shards. Other shards have unknown lengths until they are
    /// downloaded.
    pub fn scan(shards: &[Location], options: OpenOptions<'_>) -> Result<Self, Error> {
        let (mut index, mut damaged) = (Self::default(), Vec::new());
        let scanner = Scanner::new(options.store, options.cancelled);
        let scan = |shard: usize| match &shards[shard] {
            local @ Location::File(_) => scanner.scan_shard(local).map(Some),
            Location::Url(_) | Location::Pipe(_) => Ok(None),
        };
        let left_out = examine_all(shards, options, scan, |location, found| {
            let Some((stamp, scan)) = found else {
                return index.push(
                    location,
                    None,
                    UNKNOWN_LENGTH,
                    RegionsAt::Arrival(OnceLock::new()),
                );
            };
            damaged.extend(scan.note(location));
            let count = scan.regions.len() as u32;
            let place = RegionsAt::Memory(Arc::new(scan.regions));
            index.push(location, Some(stamp), count, place);
        })?;
        index.notes = [left_out, damaged].concat();
        Ok(index)
    }

    pub fn from_file(
        shards: &[Location],
        path: &Path,
        options: OpenOptions<'_>,
    ) -> Result<Self, Error> {
        let (file, entries) = match Location::of(&path.to_string_lossy()) {
            url @ Location::Url(_) => IndexFile::fetch(&url, options.store, options.cancelled)?,
            _ => IndexFile::open(path)?,
        };
        let entry_of: Vec<Option<u32>> = lookup::find(&entries, shards);
        let check = |shard: usize| {
            let location = &shards[shard];
            let entry = entry_of[shard].map(|entry| &entries[entry as usize]);
            let entry = entry.ok_or_else(|| Error::NotIndexed {
                shard: location.to_string(),
                index: file.path().to_owned(),
            })?;
            // A remote shard is compared when it is downloaded.
            if let Location::File(_) = location
                && let Some(what) = entry.stamp.change(&Stamp::of(location)?)
            {
                return Err(Error::Changed {
                    shard: location.to_string(),
                    index: Some(file.path().to_owned()),
                    what,
                });
            }
            Ok(entry)
        };
        let mut index = Self::default();
        index.notes = examine_all(shards, options, check, |location, entry| {
            let (stamp, place) = (entry.stamp.clone(), RegionsAt::File(entry.into()));
            index.push(location, Some(stamp), entry.count, place);
        })?;
        index.file = Some(file);
        Ok(index)
    }

    fn push(&mut self, location: &Location, stamp: Option<Stamp>, count: u32, place: RegionsAt) {
        self.counts.push(count);
        self.shards.push(Shard { location: location.clone(), stamp, place });
    }

    /// Number of samples in the shards of known length.
    pub fn num_samples(&self) -> u64 {
        let known = self.counts.iter().filter(|&&count| count != UNKNOWN_LENGTH);
        known.map(|&count| u64::from(count)).sum()
    }

    pub fn is_complete(&self) -> bool {
        !self.counts.contains(&UNKNOWN_LENGTH)
    }

    /// Length of each shard, or [`UNKNOWN_LENGTH`].
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// The shards in the order of the list.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// One sentence per skipped shard and per damaged shard.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub fn regions(&self, shard: u32) -> Result<Arc<Regions>, IndexError> {
        match (&self.shards[shard as usize].place, &self.file) {
            (RegionsAt::Memory(regions), _) => Ok(Arc::clone(regions)),
            (RegionsAt::File(extent), Some(file)) => file.regions(*extent).map(Arc::new),
            (RegionsAt::File(_), None) | (RegionsAt::Arrival(_), _) => Err(IndexError::NotAnIndex),
        }
    }

    /// Takes note of the regions that a shard turned out to have.
    pub fn arrived(&self, shard: u32, regions: Regions) -> Regions {
        if let RegionsAt::Arrival(fingerprint) = &self.shards[shard as usize].place {
            fingerprint.get_or_init(|| regions.fingerprint());
        }
        regions
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(IndexFile::path)
    }
}

/// Examines every shard in parallel and takes the results in order. A shard that cannot be used is an error or is
/// skipped. Returns one sentence per skipped shard.
fn examine_all<T: Send>(
    shards: &[Location],
    options: OpenOptions<'_>,
    examine: impl Fn(usize) -> Result<T, Error> + Sync,
    mut take: impl FnMut(&Location, T) + Send,
) -> Result<Vec<String>, Error> {
    let skip = options.missing == OnMissingShard::Skip;
    let (mut locations, mut left_out) = (shards.iter(), Vec::new());
    in_order(shards.len(), options.threads, options.cancelled, examine, |found| {
        let location = locations.next().ok_or(Error::Closed)?;
        match found {
            Ok(found) => take(location, found),
            Err(error) if skip && error.is_shards() => {
                left_out.push(format!("{error}; it is left out"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    Ok(left_out)
}
