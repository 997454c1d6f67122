//! A disk cache of whole shards, shared by all processes that name the folder.
//!
//! A file's name is a digest of the shard's address and state. The process that writes a file locks `NAME.part` and renames it
//! when it is complete; others wait. The kernel releases the locks of dead processes. Readers hold a shared lock, and only files
//! that nobody reads are removed. Files are trusted to be the shard, so a folder that everyone may write to is refused, and links
//! are not followed.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::digest::{Context, SHA256};

use crate::os::{is_at, is_open_to_all, no_links};
use crate::shards::Identity;

const POLL: Duration = Duration::from_millis(50);
const WHOLE: &str = "shard";
const PART: &str = "part";
/// Two hex digits per byte of the shortened digest.
const NAME_LETTERS: usize = 40;

#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
    limit: u64,
}

#[derive(Debug)]
pub(super) enum Found {
    Whole(File),
    Mine(Claim),
    /// Another process writes it, has just written it or is about to remove it.
    Busy,
}

/// The exclusive right to write one file. Dropping it unfinished leaves no file.
#[derive(Debug)]
pub(super) struct Claim {
    pub file: File,
    cache: Cache,
    part: PathBuf,
    whole: PathBuf,
    kept: bool,
}

impl Cache {
    pub fn new(folder: PathBuf, limit: u64) -> io::Result<Self> {
        if is_open_to_all(&std::fs::metadata(&folder)?) {
            return Err(io::Error::other(
                "everyone may write into it, so shards that are kept there could be anybody's",
            ));
        }
        Ok(Self { folder, limit })
    }

    /// `None` if the state cannot be identified.
    pub fn path(&self, address: &str, identity: &Identity) -> Option<PathBuf> {
        if identity.etag.is_none() && (identity.modified.is_none() || identity.size.is_none()) {
            return None;
        }
        let (modified, size) = match &identity.etag {
            Some(_) => (None, None),
            None => (identity.modified.as_deref(), identity.size),
        };
        let size = size.map(|size| size.to_string());
        let parts = [Some(address), identity.etag.as_deref(), modified, size.as_deref()];
        let mut digest = Context::new(&SHA256);
        for part in parts {
            // Length first, so that different lists of parts never give the same text.
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

    pub fn look(&self, path: &Path) -> io::Result<Found> {
        if let Some(found) = open_whole(path)? {
            return Ok(found);
        }
        let part = path.with_extension(PART);
        let file = no_links().create(true).truncate(false).read(true).write(true).open(&part)?;
        if !locked(file.try_lock())? || !is_at(&file, &part)? {
            return Ok(Found::Busy);
        }
        let claim = Claim { file, cache: self.clone(), part, whole: path.to_owned(), kept: false };
        // Another process may have finished it before the lock.
        if let Some(found) = open_whole(path)? {
            return Ok(found);
        }
        // A process that died may have left part of it.
        claim.file.set_len(0)?;
        Ok(Found::Mine(claim))
    }

    /// As [`Self::look`], but waits for other processes to finish or give up.
    pub async fn wait(&self, path: &Path) -> io::Result<Found> {
        loop {
            match self.look(path)? {
                Found::Busy => tokio::time::sleep(POLL).await,
                found => return Ok(found),
            }
        }
    }

    /// Removes the least recently used files until the rest fits, and the leftovers of dead processes. Files that cannot be
    /// removed or inspected stay.
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

impl Claim {
    /// Gives the file its final name, and makes room for it. Its bytes are synced first: no partial shard has a final name, even
    /// after a crash of the machine.
    pub fn keep(mut self) -> io::Result<File> {
        let file = self.file.try_clone()?;
        file.sync_data()?;
        std::fs::rename(&self.part, &self.whole)?;
        self.kept = true;
        // After renaming: between the two locks, another process could take an unlocked `.part`.
        file.unlock()?;
        file.lock_shared()?;
        self.cache.trim();
        Ok(file)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            // Removed while locked: the next claim creates a new file.
            drop(std::fs::remove_file(&self.part));
        }
    }
}

/// The suffix, if the name belongs to the cache.
fn suffix(path: &Path) -> Option<&str> {
    let (name, suffix) = path.file_name()?.to_str()?.split_once('.')?;
    let ours = name.len() == NAME_LETTERS && name.bytes().all(|letter| letter.is_ascii_hexdigit());
    ours.then_some(suffix)
}

fn open_whole(path: &Path) -> io::Result<Option<Found>> {
    let file = match open_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !locked(file.try_lock_shared())? || !is_at(&file, path)? {
        return Ok(Some(Found::Busy));
    }
    // An error only affects the order of removal.
    drop(file.set_modified(SystemTime::now()));
    Ok(Some(Found::Whole(file)))
}

fn open_file(path: &Path) -> io::Result<File> {
    no_links().read(true).open(path)
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

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
