//! Whole shards kept on the disk after their use, for every process that names the folder.
//!
//! A shard's file is named by its address and its state. Whoever makes it holds a lock on `NAME.part` and renames it when it
//! is whole; the others wait. The kernel gives up the lock of a process that ends, however it ends, so a claim cannot
//! outlive its owner. Whoever reads a file holds a shared lock on it, and only files that nobody reads are removed, and no
//! file of another kind.
//!
//! What is read here is taken for the shard, so nobody else may put anything in its place: a folder that everyone may write
//! to is refused, and links are not followed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ring::digest::{Context, SHA256};

use crate::shards::Identity;

/// How often a process looks whether another has fetched what both need.
const POLL: Duration = Duration::from_millis(50);
const WHOLE: &str = "shard";
const PART: &str = "part";
/// Letters of a file's name before its suffix: two for each of the first bytes of a digest.
const NAME_LETTERS: usize = 40;
/// Opens no symbolic link.
const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
/// Everybody's right to write into a folder.
const WRITABLE_BY_ALL: u32 = 0o002;

/// A folder of whole shards.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
    limit: u64,
}

/// What a process finds where it needs a shard.
#[derive(Debug)]
pub(super) enum Found {
    Whole(File),
    /// It is this process that fetches it.
    Mine(Claim),
}

/// The right to make a file of the cache. Dropped before it is kept, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Claim {
    pub file: File,
    part: PathBuf,
    kept: bool,
}

impl Cache {
    /// The cache in a folder that is there.
    ///
    /// # Errors
    /// Everyone may write into the folder, or it cannot be examined.
    pub fn new(folder: PathBuf, limit: u64) -> io::Result<Self> {
        if std::fs::metadata(&folder)?.mode() & WRITABLE_BY_ALL != 0 {
            return Err(io::Error::other(
                "everyone may write into it, so shards that are kept there could be anybody's",
            ));
        }
        Ok(Self { folder, limit })
    }

    /// Where a shard of this state is kept; nothing where its state cannot be told from another.
    pub fn path(&self, address: &str, identity: &Identity) -> Option<PathBuf> {
        if identity.etag.is_none() && (identity.modified.is_none() || identity.size.is_none()) {
            return None;
        }
        let (modified, size) = match &identity.etag {
            Some(_) => (None, None),
            None => (identity.modified.as_deref(), identity.size),
        };
        let size = size.map(|size| size.to_string());
        let parts = [
            Some(address),
            identity.etag.as_deref(),
            modified,
            size.as_deref(),
        ];
        let mut digest = Context::new(&SHA256);
        for part in parts {
            // The length in front, so that no two lists of parts are one text.
            let length = part.map_or(u64::MAX, |text| text.len() as u64);
            digest.update(&length.to_le_bytes());
            digest.update(part.unwrap_or_default().as_bytes());
        }
        let bytes = digest.finish();
        let letters = bytes.as_ref().iter().map(|byte| format!("{byte:02x}"));
        let mut name: String = letters.take(NAME_LETTERS / 2).collect();
        name.push('.');
        name.push_str(WHOLE);
        Some(self.folder.join(name))
    }

    /// The file, or the claim to make it; nothing where another process is making it.
    pub fn look(&self, path: &Path) -> io::Result<Option<Found>> {
        match open_whole(path)? {
            Whole::Here(file) => return Ok(Some(Found::Whole(file))),
            Whole::Busy => return Ok(None),
            Whole::Missing => {}
        }
        let part = path.with_extension(PART);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .custom_flags(NO_LINK)
            .open(&part)?;
        if !locked(file.try_lock())? || !is_at(&file, &part)? {
            return Ok(None);
        }
        let claim = Claim {
            file,
            part,
            kept: false,
        };
        // Between the first look and the lock another may have made it.
        match open_whole(path)? {
            Whole::Here(file) => return Ok(Some(Found::Whole(file))),
            Whole::Busy => return Ok(None),
            Whole::Missing => {}
        }
        // A process that ended half-way may have left its beginning.
        claim.file.set_len(0)?;
        Ok(Some(Found::Mine(claim)))
    }

    /// As [`Self::look`], waiting for the other process as long as its file changes once within `patience`: it may have been
    /// stopped.
    pub async fn wait(&self, path: &Path, patience: Duration) -> io::Result<Option<Found>> {
        let part = path.with_extension(PART);
        let state =
            || std::fs::metadata(&part).map_or((0, 0), |part| (part.mtime(), part.mtime_nsec()));
        let (mut before, mut since) = (state(), Instant::now());
        while since.elapsed() < patience {
            if let Some(found) = self.look(path)? {
                return Ok(Some(found));
            }
            tokio::time::sleep(POLL).await;
            let now = state();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        Ok(None)
    }

    /// Gives a claimed file its name, and makes room for it. Its bytes are on the disk before: should the machine fail, no
    /// part of a shard is ever taken for a whole one.
    pub fn keep(&self, mut claim: Claim, path: &Path) -> io::Result<File> {
        let file = claim.file.try_clone()?;
        file.sync_data()?;
        std::fs::rename(&claim.part, path)?;
        claim.kept = true;
        // Behind the renaming: a lock is given up for a moment when it becomes a shared one, and a part without a lock
        // would be anybody's.
        file.lock_shared()?;
        self.trim();
        Ok(file)
    }

    /// Removes the files that were used longest ago until the rest fits, and what ended processes left. What cannot be
    /// removed or examined stays.
    pub fn trim(&self) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return;
        };
        let mut files = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            match suffix(&path) {
                Some(PART) => drop(remove_unused(&path)),
                Some(WHOLE) => {
                    if let Ok(metadata) = std::fs::metadata(&path) {
                        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                        files.push((used, metadata.len(), path));
                    }
                }
                _ => {}
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in files {
            if total <= self.limit {
                return;
            }
            if remove_unused(&path).unwrap_or(false) {
                total -= size;
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            // Still locked: whoever claims it next makes a new one.
            drop(std::fs::remove_file(&self.part));
        }
    }
}

/// The suffix of a name that is one of ours.
fn suffix(path: &Path) -> Option<&str> {
    let (name, suffix) = path.file_name()?.to_str()?.split_once('.')?;
    let ours = name.len() == NAME_LETTERS && name.bytes().all(|letter| letter.is_ascii_hexdigit());
    ours.then_some(suffix)
}

enum Whole {
    Missing,
    /// Whoever has it locked alone has just made it, or is about to remove it.
    Busy,
    Here(File),
}

/// A whole file under a shared lock, marked as just used.
fn open_whole(path: &Path) -> io::Result<Whole> {
    let file = match open_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Whole::Missing),
        Err(error) => return Err(error),
    };
    if !locked(file.try_lock_shared())? || !is_at(&file, path)? {
        return Ok(Whole::Busy);
    }
    // Only the order of removal depends on it.
    drop(file.set_modified(SystemTime::now()));
    Ok(Whole::Here(file))
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(NO_LINK)
        .open(path)
}

fn remove_unused(path: &Path) -> io::Result<bool> {
    let file = open_file(path)?;
    let free = locked(file.try_lock())? && is_at(&file, path)?;
    if free {
        std::fs::remove_file(path)?;
    }
    Ok(free)
}

fn locked(result: Result<(), TryLockError>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the name still stands for the opened file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    Ok(std::fs::metadata(path)
        .is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
