//! Shards → how many samples they hold, and where those lie: read once at opening, or taken from an index file.

mod file;
mod format;
mod lookup;
mod parallel;
mod scanner;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use file::Extent;
pub use file::{IndexFile, Summary, check_index, write_index};
pub use format::{Entry, HEAD, Head, parse_table};
use parallel::in_order;
use scanner::Scanner;

use crate::config::{OnMissingShard, StoreConfig};
use crate::error::{Error, IndexError};
use crate::shards::{Location, Regions, Stamp, UNKNOWN_LENGTH, is_url};

/// A shard of the list.
#[derive(Debug)]
pub struct Shard {
    /// Where it lies.
    pub location: Location,
    /// What tells that it is the shard that was indexed; nothing where none was.
    pub stamp: Option<Stamp>,
    place: Place,
}

/// Where a shard's regions are.
#[derive(Debug)]
enum Place {
    Memory(Arc<Regions>),
    File(Extent),
    /// Whoever brings the shard here finds them.
    Arrival,
}

/// All samples of a list of shards.
#[derive(Debug, Default)]
pub struct Index {
    shards: Vec<Shard>,
    /// Samples of each shard, or [`UNKNOWN_LENGTH`].
    counts: Vec<u32>,
    file: Option<IndexFile>,
    notes: Vec<String>,
}

/// What becomes of shards that cannot be used, and how many threads look at them.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'loader> {
    /// What becomes of shards that are missing or no archives.
    pub missing: OnMissingShard,
    /// Threads, at least 1.
    pub threads: usize,
    /// How shards are read that are no plain local files.
    pub store: &'loader StoreConfig,
    /// Ends it early once set.
    pub cancelled: &'loader AtomicBool,
}

impl Index {
    /// Reads the headers of all local shards. Of others nothing is known until they are brought here.
    ///
    /// # Errors
    /// A shard cannot be opened or is no archive (of several the one that stands first), or it was cancelled. With
    /// [`OnMissingShard::Skip`] such shards are left out.
    pub fn scan(shards: &[Location], opening: Opening<'_>) -> Result<Self, Error> {
        let (mut index, mut damaged) = (Self::default(), Vec::new());
        let scanner = Scanner::new(opening.store, opening.cancelled);
        let scan = |shard: usize| match &shards[shard] {
            local @ Location::File(_) => scanner.look(local).map(Some),
            Location::Url(_) | Location::Pipe(_) => Ok(None),
        };
        let left_out = for_each(shards, opening, scan, |location, found| {
            let Some((stamp, scan)) = found else {
                return index.push(location, None, UNKNOWN_LENGTH, Place::Arrival);
            };
            damaged.extend(scan.note(location));
            let count = scan.regions.len() as u32;
            let place = Place::Memory(Arc::new(scan.regions));
            index.push(location, Some(stamp), count, place);
        })?;
        index.notes = [left_out, damaged].concat();
        Ok(index)
    }

    /// Takes what an index file says of the shards, and reads none of them.
    ///
    /// # Errors
    /// The file is no index, a shard is not in it or is not what it was, or it was cancelled. A shard that cannot be found is
    /// an error or left out, as above.
    pub fn from_file(
        shards: &[Location],
        path: &Path,
        opening: Opening<'_>,
    ) -> Result<Self, Error> {
        let (file, entries) = match path.to_str().filter(|text| is_url(text)) {
            Some(url) => IndexFile::fetch(url, opening.store, opening.cancelled)?,
            None => IndexFile::open(path)?,
        };
        let entry_of: Vec<Option<u32>> = lookup::find(&entries, shards);
        let check = |shard: usize| {
            let location = &shards[shard];
            let entry = entry_of[shard].map(|entry| &entries[entry as usize]);
            let entry = entry.ok_or_else(|| Error::NotIndexed {
                shard: location.to_string(),
                index: path.to_owned(),
            })?;
            // What a server has is compared when it is fetched.
            if let Location::File(_) = location
                && let Some(what) = entry.stamp.change(&stamp_of(location)?)
            {
                return Err(Error::Changed {
                    shard: location.to_string(),
                    index: Some(path.to_owned()),
                    what,
                });
            }
            Ok(entry)
        };
        let mut index = Self::default();
        index.notes = for_each(shards, opening, check, |location, entry| {
            let (stamp, place) = (entry.stamp.clone(), Place::File(entry.into()));
            index.push(location, Some(stamp), entry.count, place);
        })?;
        index.file = Some(file);
        Ok(index)
    }

    fn push(&mut self, location: &Location, stamp: Option<Stamp>, count: u32, place: Place) {
        self.counts.push(count);
        self.shards.push(Shard {
            location: location.clone(),
            stamp,
            place,
        });
    }

    /// Number of samples in the shards of known length.
    #[must_use]
    pub fn num_samples(&self) -> u64 {
        let known = self.counts.iter().filter(|&&count| count != UNKNOWN_LENGTH);
        known.map(|&count| u64::from(count)).sum()
    }

    /// Whether every shard's length is known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.counts.contains(&UNKNOWN_LENGTH)
    }

    /// Samples of each shard, or [`UNKNOWN_LENGTH`].
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
    ///
    /// # Errors
    /// They are in an index file, which cannot be read any more.
    pub fn regions(&self, shard: u32) -> Result<Arc<Regions>, IndexError> {
        match (&self.shards[shard as usize].place, &self.file) {
            (Place::Memory(regions), _) => Ok(Arc::clone(regions)),
            (Place::File(extent), Some(file)) => {
                let count = self.counts[shard as usize];
                file.regions(*extent, count).map(Arc::new)
            }
            (Place::File(_), None) | (Place::Arrival, _) => Err(IndexError::NotAnIndex),
        }
    }

    /// The index file, where there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(IndexFile::path)
    }
}

/// Looks at every shard, and takes what is found in order. Shards that cannot be used are an error or left out; gives a
/// sentence about each of those.
fn for_each<T: Send>(
    shards: &[Location],
    opening: Opening<'_>,
    look: impl Fn(usize) -> Result<T, Error> + Sync,
    mut take: impl FnMut(&Location, T) + Send,
) -> Result<Vec<String>, Error> {
    let skip = opening.missing == OnMissingShard::Skip;
    let (mut locations, mut left_out) = (shards.iter(), Vec::new());
    in_order(
        shards.len(),
        opening.threads,
        opening.cancelled,
        look,
        |found| {
            let location = locations.next().ok_or(Error::Closed)?;
            match found {
                Ok(found) => take(location, found),
                Err(error) if skip && error.is_shards() => {
                    left_out.push(format!("{error}; it is left out"));
                }
                Err(error) => return Err(error),
            }
            Ok(())
        },
    )?;
    Ok(left_out)
}

fn stamp_of(location: &Location) -> Result<Stamp, Error> {
    Stamp::of(location).map_err(|source| Error::Open {
        shard: location.to_string(),
        source,
    })
}
