//! Whole shards kept on the disk after their use, for every process that names the folder.
//!
//! A shard's file is named by its address and its state. Whoever makes it holds a lock on `NAME.part` and renames it when it
//! is whole; the others wait. The kernel gives up the lock of a process that ends, however it ends, so a claim cannot
//! outlive its owner. Whoever reads a file holds a shared lock on it, and only files that nobody reads are removed.

use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::source::Identity;

/// How often a process looks whether another has fetched what both need.
const POLL: Duration = Duration::from_millis(50);
const WHOLE: &str = "shard";
const PART: &str = "part";

/// A folder of whole shards.
#[derive(Debug)]
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
    pub fn new(folder: PathBuf, limit: u64) -> Self {
        Self { folder, limit }
    }

    /// Where a shard of this state is kept; nothing where its state cannot be told from another.
    pub fn path(&self, address: &str, identity: &Identity) -> Option<PathBuf> {
        if identity.etag.is_none() && (identity.modified.is_none() || identity.size.is_none()) {
            return None;
        }
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, address, &identity.etag).hash(&mut hasher);
            if identity.etag.is_none() {
                (&identity.modified, identity.size).hash(&mut hasher);
            }
            hasher.finish()
        };
        Some(
            self.folder
                .join(format!("{:016x}{:016x}.{WHOLE}", half(0), half(1))),
        )
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

    /// As [`Self::look`], waiting for the other process.
    pub async fn wait(&self, path: &Path) -> io::Result<Found> {
        loop {
            if let Some(found) = self.look(path)? {
                return Ok(found);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Gives a claimed file its name, and makes room for it.
    pub fn keep(&self, mut claim: Claim, path: &Path) -> io::Result<File> {
        let file = claim.file.try_clone()?;
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
            match path.extension().and_then(|extension| extension.to_str()) {
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

enum Whole {
    Missing,
    /// Whoever has it locked alone has just made it, or is about to remove it.
    Busy,
    Here(File),
}

/// A whole file under a shared lock, marked as just used.
fn open_whole(path: &Path) -> io::Result<Whole> {
    let file = match File::open(path) {
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

fn remove_unused(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
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
mod tests {
    use super::*;
    use std::io::Write;

    fn identity(etag: &str) -> Identity {
        Identity {
            etag: Some(etag.to_owned()),
            ..Identity::default()
        }
    }

    fn make(cache: &Cache, etag: &str, bytes: usize) -> File {
        let path = cache.path("http://h/a.tar", &identity(etag)).unwrap();
        let Some(Found::Mine(mut claim)) = cache.look(&path).unwrap() else {
            panic!("{etag} is there already");
        };
        claim.file.write_all(&vec![7; bytes]).unwrap();
        cache.keep(claim, &path).unwrap()
    }

    fn names(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn one_makes_it_and_the_others_wait() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), 1 << 20);
        let path = cache.path("http://h/a.tar", &identity("1")).unwrap();
        assert_ne!(path, cache.path("http://h/a.tar", &identity("2")).unwrap());
        assert_ne!(path, cache.path("http://h/b.tar", &identity("1")).unwrap());
        assert!(cache.path("http://h/a.tar", &Identity::default()).is_none());
        let Some(Found::Mine(mut claim)) = cache.look(&path).unwrap() else {
            panic!("nobody has it");
        };
        assert!(cache.look(&path).unwrap().is_none());
        claim.file.write_all(b"half").unwrap();
        drop(claim);
        assert_eq!(
            names(folder.path()),
            0,
            "a claim that is given up leaves nothing"
        );
        let Some(Found::Mine(mut claim)) = cache.look(&path).unwrap() else {
            panic!("it was given up");
        };
        claim.file.write_all(b"whole").unwrap();
        let kept = cache.keep(claim, &path).unwrap();
        assert!(matches!(cache.look(&path).unwrap(), Some(Found::Whole(_))));
        drop(kept);
        let Some(Found::Whole(file)) = cache.look(&path).unwrap() else {
            panic!("it is kept");
        };
        assert_eq!(io::read_to_string(file).unwrap(), "whole");
    }

    #[test]
    fn what_a_crash_left_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), 1 << 20);
        let path = cache.path("http://h/a.tar", &identity("1")).unwrap();
        let part = path.with_extension(PART);
        std::fs::write(&part, b"half of an ended process").unwrap();
        let Some(Found::Mine(claim)) = cache.look(&path).unwrap() else {
            panic!("its owner is gone");
        };
        assert_eq!(claim.file.metadata().unwrap().len(), 0);
        std::mem::forget(claim);
        let other = folder.path().join("other.part");
        std::fs::write(&other, b"x").unwrap();
        cache.trim();
        assert!(
            !other.exists() && part.exists(),
            "a living process keeps its claim"
        );
    }

    #[test]
    fn the_longest_unused_goes_and_what_is_read_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), 2500);
        let path = |etag: &str| cache.path("http://h/a.tar", &identity(etag)).unwrap();
        let reading = make(&cache, "1", 1000);
        for (place, etag) in ["2", "3"].into_iter().enumerate() {
            let age = Duration::from_secs(100 - place as u64);
            make(&cache, etag, 700)
                .set_modified(SystemTime::now() - age)
                .unwrap();
        }
        reading
            .set_modified(SystemTime::now() - Duration::from_secs(1000))
            .unwrap();
        make(&cache, "4", 700);
        let there = |etag: &str| path(etag).exists();
        assert_eq!(
            [there("1"), there("2"), there("3"), there("4")],
            [true, false, true, true]
        );
        drop(reading);
        make(&cache, "5", 700);
        assert_eq!([there("1"), there("3"), there("5")], [false, true, true]);
    }
}
