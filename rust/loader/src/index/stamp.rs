//! What tells that a shard is still the one that was indexed.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::location::Location;

/// What tells that a shard is the one that was indexed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Its bytes, as they lie there: of a compressed shard the compressed ones.
    pub size: u64,
    /// Which of several contents of this size.
    pub version: Version,
}

/// Tells contents of one place and size apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Version {
    /// Nothing does.
    #[default]
    Unknown,
    /// When a file was changed, in nanoseconds since 1970.
    Modified(i64),
    /// What the server calls this content.
    ETag(Box<str>),
}

impl Stamp {
    /// That of a local file; of what lies elsewhere, one that says nothing.
    ///
    /// # Errors
    /// The file is not there, or cannot be examined.
    pub fn of(location: &Location) -> io::Result<Self> {
        match location {
            Location::File(path) => Ok(Self::of_file(&std::fs::metadata(path)?)),
            Location::Url(_) | Location::Pipe(_) => Ok(Self::default()),
        }
    }

    /// That of an opened file.
    #[must_use]
    pub fn of_file(metadata: &Metadata) -> Self {
        let seconds = metadata.mtime().saturating_mul(1_000_000_000);
        Self {
            size: metadata.len(),
            version: Version::Modified(seconds.saturating_add(metadata.mtime_nsec())),
        }
    }

    /// What has changed since this stamp was made; nothing where `now` tells of no change.
    #[must_use]
    pub fn change(&self, now: &Self) -> Option<String> {
        let unknown = [&self.version, &now.version].contains(&&Version::Unknown);
        if self.size != now.size {
            Some(format!("it had {} bytes and has {}", self.size, now.size))
        } else if self.version != now.version && !unknown {
            Some("it was written again".to_owned())
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_size_or_time_is_a_change() {
        let stamp = |size, version| Stamp { size, version };
        let then = stamp(7, Version::Modified(5));
        assert_eq!(then.change(&then), None);
        assert_eq!(then.change(&stamp(7, Version::Unknown)), None);
        assert_eq!(
            then.change(&stamp(8, Version::Modified(5))).unwrap(),
            "it had 7 bytes and has 8"
        );
        assert_eq!(
            then.change(&stamp(7, Version::Modified(6))).unwrap(),
            "it was written again"
        );
    }
}
