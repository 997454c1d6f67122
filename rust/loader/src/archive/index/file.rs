//! Reads and writes index files. The regions stay on disk until a shard is used; a file is written atomically.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::format::{Entry, HEAD, Head, parse_table};
use super::lookup;
use super::parallel::in_order;
use super::scanner::Scanner;
use crate::config::StoreConfig;
use crate::error::{Error, IndexError};
use crate::os::{read_exact_at, usual_permissions};
use crate::remote::Fetcher;
use crate::shards::{Fingerprint, Location, Regions};

#[derive(Debug)]
pub struct IndexFile {
    path: PathBuf,
    file: File,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct FileRange {
    offset: u64,
    length: usize,
    pub(super) fingerprint: Fingerprint,
}

impl From<&Entry> for FileRange {
    fn from(entry: &Entry) -> Self {
        let fingerprint = Fingerprint { samples: entry.count, crc: entry.crc };
        Self { offset: entry.offset, length: entry.length as usize, fingerprint }
    }
}

impl IndexFile {
    pub fn open(path: &Path) -> Result<(Self, Vec<Entry>), Error> {
        let file = File::open(path).map_err(|error| wrong(path, error.into()))?;
        Self::of(file, path)
    }

    pub fn fetch(
        location: &Location,
        config: &StoreConfig,
        cancelled: &AtomicBool,
    ) -> Result<(Self, Vec<Entry>), Error> {
        let fetched = Fetcher::open(config)?.fetch(location, cancelled)?;
        Self::of(fetched.file, Path::new(&location.to_string()))
    }

    fn of(file: File, path: &Path) -> Result<(Self, Vec<Entry>), Error> {
        let entries = read_table(&file).map_err(|source| wrong(path, source))?;
        let path = path.to_owned();
        Ok((Self { path, file }, entries))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn regions(&self, extent: FileRange) -> Result<Regions, IndexError> {
        let mut bytes = vec![0; extent.length];
        read_exact_at(&self.file, &mut bytes, extent.offset)?;
        let Fingerprint { samples, crc } = extent.fingerprint;
        if crc32fast::hash(&bytes) != crc {
            return Err(IndexError::Damaged("a shard's regions have changed"));
        }
        Regions::decode(&bytes, samples)
            .ok_or(IndexError::Damaged("a shard's regions cannot be read"))
    }
}

pub(super) fn locations(entries: &[Entry]) -> Vec<Location> {
    entries.iter().map(|entry| Location::of(&entry.location)).collect()
}

fn wrong(path: &Path, source: IndexError) -> Error {
    Error::Index { index: path.to_owned(), source }
}

fn read_table(file: &File) -> Result<Vec<Entry>, IndexError> {
    const CUT: IndexError = IndexError::Damaged("it is not as long as its head says");
    let size = file.metadata()?.len();
    let mut head = [0; HEAD];
    if size < HEAD as u64 {
        return Err(IndexError::NotAnIndex);
    }
    read_exact_at(file, &mut head, 0)?;
    let head = Head::parse(&head)?;
    if head.table.checked_add(head.length) != Some(size) {
        return Err(CUT);
    }
    // The file has this length, so the allocation is safe.
    let mut bytes = vec![0; head.length as usize];
    read_exact_at(file, &mut bytes, head.table)?;
    if crc32fast::hash(&bytes) != head.crc {
        return Err(IndexError::Damaged("its table has changed"));
    }
    let (entries, end) = parse_table(&bytes)?;
    let samples: u64 = entries.iter().map(|entry| u64::from(entry.count)).sum();
    if entries.len() != head.shards as usize || samples != head.samples || end != head.table {
        return Err(IndexError::Damaged("its head does not fit its table"));
    }
    Ok(entries)
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub shards: u64,
    /// Number of samples. The damaged rest of a shard counts as one.
    pub samples: u64,
    pub notes: Vec<String>,
}

struct Scanned {
    regions: Vec<u8>,
    entry: Entry,
    note: Option<String>,
}

fn scan_one(scanner: &Scanner<'_>, location: &Location) -> Result<Scanned, Error> {
    let (stamp, scan) = scanner.scan_shard(location)?;
    let mut regions = Vec::new();
    scan.regions.encode(&mut regions);
    let entry = Entry {
        location: location.without_secrets().into(),
        count: scan.regions.len() as u32,
        offset: 0,
        length: regions.len() as u32,
        crc: crc32fast::hash(&regions),
        stamp,
    };
    Ok(Scanned { note: scan.note(location), regions, entry })
}

/// Reads the headers of all shards and writes an index of them, atomically.
pub fn write_index(
    shards: &[Location],
    out: &Path,
    threads: usize,
    store: &StoreConfig,
    cancelled: &AtomicBool,
) -> Result<Summary, Error> {
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let wrong =
        |error: std::io::Error| Error::Index { index: out.to_owned(), source: error.into() };
    let file = usual_permissions(tempfile::Builder::new().prefix(".index-"))
        .tempfile_in(folder)
        .map_err(wrong)?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    writer.write_all(&[0; HEAD]).map_err(wrong)?;
    let (mut summary, mut table, mut end) = (Summary::default(), Vec::new(), HEAD as u64);
    let scanner = Scanner::new(store, cancelled);
    let scan = |shard: usize| scan_one(&scanner, &shards[shard]);
    in_order(shards.len(), threads, cancelled, scan, |scanned| {
        let scanned = scanned?;
        writer.write_all(&scanned.regions).map_err(wrong)?;
        scanned.entry.encode(&mut table);
        end += u64::from(scanned.entry.length);
        summary.shards += 1;
        summary.samples += u64::from(scanned.entry.count);
        summary.notes.extend(scanned.note);
        Ok(())
    })?;
    let head = Head {
        shards: summary.shards as u32,
        samples: summary.samples,
        table: end,
        length: table.len() as u64,
        crc: crc32fast::hash(&table),
    };
    let mut finish = || {
        writer.write_all(&table)?;
        writer.seek(SeekFrom::Start(0))?;
        writer.write_all(&head.encode())?;
        writer.flush()?;
        writer.get_ref().as_file().sync_all()
    };
    finish().map_err(wrong)?;
    let file = writer.into_inner().map_err(|error| wrong(error.into_error()))?;
    file.persist(out).map_err(|error| wrong(error.error))?;
    Ok(summary)
}

/// Reads the headers again, and returns one sentence per difference.
pub fn check_index(
    shards: &[Location],
    index: &Path,
    threads: usize,
    store: &StoreConfig,
    cancelled: &AtomicBool,
) -> Result<Vec<String>, Error> {
    let (file, entries) = IndexFile::open(index)?;
    let found = lookup::find(&locations(&entries), shards);
    let mut differences = Vec::new();
    let scanner = Scanner::new(store, cancelled);
    let check = |shard: usize| -> Option<String> {
        let location = &shards[shard];
        let Some(entry) = found[shard].map(|place| &entries[place as usize]) else {
            return Some(format!("{location} is not in it"));
        };
        let scanned = match scan_one(&scanner, location) {
            Ok(scanned) => scanned,
            Err(error) => return Some(error.sentence()),
        };
        if let Err(error) = file.regions(entry.into()) {
            return Some(format!("{location}: {error}"));
        }
        let is = |what: &str, now: u64, then: u64| {
            (now != then).then(|| format!("{location} has {now} {what}, and had {then}"))
        };
        is("bytes", scanned.entry.stamp.size, entry.stamp.size)
            .or_else(|| is("samples", scanned.entry.count.into(), entry.count.into()))
            .or_else(|| {
                (scanned.entry.crc != entry.crc)
                    .then(|| format!("{location} has its samples elsewhere"))
            })
            .or_else(|| {
                (scanned.entry.stamp != entry.stamp)
                    .then(|| format!("{location} was written again since"))
            })
    };
    in_order(shards.len(), threads, cancelled, check, |difference| {
        differences.extend(difference);
        Ok(())
    })?;
    Ok(differences)
}
