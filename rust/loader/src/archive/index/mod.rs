//! The index: how many samples the shards hold and where they are.

mod file;
mod format;
mod lookup;
mod parallel;
mod scanner;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use file::{FileRange, IndexFile, locations};
pub use file::{Summary, check_index, write_index};
pub use format::{Entry, HEAD, Head, parse_table};
pub(crate) use lookup::find;
use parallel::in_order;
use scanner::Scanner;

use crate::config::{OnMissingShard, StoreConfig};
use crate::error::{Error, IndexError};
use crate::shards::{Chosen, Fingerprint, Location, Regions, Stamp, UNKNOWN_LENGTH};

#[derive(Debug)]
pub struct Shard {
    pub location: Location,
    /// Of the shard that was indexed; `None` if it was not.
    pub stamp: Option<Stamp>,
    place: RegionsAt,
    /// Unknown until its headers have been read.
    pub fingerprint: OnceLock<Fingerprint>,
    /// What is read of it; `None` for everything.
    pub chosen: Option<Chosen>,
}

impl Shard {
    /// Takes note of its contents, and says if its samples were chosen from others.
    fn check(&self, now: Fingerprint) -> Result<(), String> {
        self.fingerprint.get_or_init(|| now);
        self.chosen.as_ref().map_or(Ok(()), |chosen| chosen.check(now))
    }

    /// Samples that are read, or [`UNKNOWN_LENGTH`].
    fn len(&self) -> u32 {
        let all = self.fingerprint.get().map_or(UNKNOWN_LENGTH, |now| now.samples);
        self.chosen.as_ref().map_or(all, |chosen| chosen.rows.len() as u32)
    }
}

#[derive(Debug)]
enum RegionsAt {
    Memory(Arc<Regions>),
    File(FileRange),
    /// Known once the shard has been downloaded.
    Arrival,
}

/// Stamp and fingerprint of a shard, if known, its regions, and a sentence about damage.
type Examined = (Option<(Stamp, Fingerprint)>, RegionsAt, Option<String>);

#[derive(Debug, Default)]
pub struct Index {
    shards: Vec<Shard>,
    /// Length of each shard, or [`UNKNOWN_LENGTH`].
    counts: Vec<u32>,
    file: Option<IndexFile>,
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct OpenOptions<'loader> {
    pub missing: OnMissingShard,
    /// At least 1.
    pub threads: usize,
    pub store: &'loader StoreConfig,
    pub cancelled: &'loader AtomicBool,
    /// What is read of each shard; empty for everything.
    pub chosen: &'loader [Chosen],
}

impl Index {
    /// Reads the headers of local shards. Others have unknown lengths until they are downloaded.
    pub fn scan(shards: &[Location], options: OpenOptions<'_>) -> Result<Self, Error> {
        let scanner = Scanner::new(options.store, options.cancelled);
        Self::open(shards, options, |number| {
            let local @ Location::File(_) = &shards[number] else {
                return Ok((None, RegionsAt::Arrival, None));
            };
            let (stamp, scan) = scanner.scan_shard(local)?;
            let note = scan.note(local);
            let known = Some((stamp, scan.regions.fingerprint()));
            let regions = scan.regions.of(options.chosen.get(number));
            Ok((known, RegionsAt::Memory(Arc::new(regions)), note))
        })
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
        let entry_of: Vec<Option<u32>> = lookup::find(&locations(&entries), shards);
        let mut index = Self::open(shards, options, |shard| {
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
            let range = FileRange::from(entry);
            Ok((Some((entry.stamp.clone(), range.fingerprint)), RegionsAt::File(range), None))
        })?;
        index.file = Some(file);
        Ok(index)
    }

    /// In parallel. A shard that cannot be used is an error or is skipped.
    fn open(
        shards: &[Location],
        options: OpenOptions<'_>,
        examine: impl Fn(usize) -> Result<Examined, Error> + Sync,
    ) -> Result<Self, Error> {
        let skip = options.missing == OnMissingShard::Skip;
        let examine = |number: usize| {
            let (known, place, note) = examine(number)?;
            let (location, chosen) = (shards[number].clone(), options.chosen.get(number).cloned());
            let (stamp, now) = known.unzip();
            let shard = Shard { location, stamp, place, chosen, fingerprint: OnceLock::new() };
            let checked = now.map_or(Ok(()), |now| shard.check(now));
            checked.map_err(|what| Error::Chosen { shard: shard.location.to_string(), what })?;
            Ok((shard, note))
        };
        let mut index = Self::default();
        in_order(
            shards.len(),
            options.threads,
            options.cancelled,
            examine,
            |found: Result<_, Error>| {
                match found {
                    Ok((shard, note)) => {
                        index.counts.push(shard.len());
                        index.shards.push(shard);
                        index.notes.extend(note);
                    }
                    Err(error) if skip && error.is_shards() => {
                        index.notes.push(format!("{}; it is left out", error.sentence()));
                    }
                    Err(error) => return Err(error),
                }
                Ok(())
            },
        )?;
        Ok(index)
    }

    /// In the shards of known length.
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

    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// One sentence per skipped or damaged shard.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub fn regions(&self, shard: u32) -> Result<Arc<Regions>, IndexError> {
        let shard = &self.shards[shard as usize];
        match (&shard.place, &self.file) {
            (RegionsAt::Memory(regions), _) => Ok(Arc::clone(regions)),
            (RegionsAt::File(extent), Some(file)) => {
                Ok(Arc::new(file.regions(*extent)?.of(shard.chosen.as_ref())))
            }
            (RegionsAt::File(_), None) | (RegionsAt::Arrival, _) => Err(IndexError::NotAnIndex),
        }
    }

    /// As [`Self::regions`], of a shard that has been downloaded. Says what is wrong with it.
    pub fn arrived(&self, shard: u32, regions: Regions) -> Result<Regions, String> {
        let shard = &self.shards[shard as usize];
        shard.check(regions.fingerprint())?;
        Ok(regions.of(shard.chosen.as_ref()))
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(IndexFile::path)
    }
}
