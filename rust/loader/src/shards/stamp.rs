//! Detects whether a shard has changed.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::location::Location;
use crate::error::Error;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp {
    /// In bytes; of a compressed shard, the compressed size.
    pub size: u64,
    pub version: Version,
}

/// Distinguishes contents of the same shard and size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Unknown,
    /// Of a file, in nanoseconds since 1970.
    Modified(i64),
    ETag(Box<str>),
}

impl Stamp {
    /// Empty for a remote shard.
    pub fn of(location: &Location) -> Result<Self, Error> {
        let Location::File(path) = location else {
            return Ok(Self::default());
        };
        let metadata = std::fs::metadata(path)
            .map_err(|source| Error::Open { shard: location.to_string(), source })?;
        Ok(Self::of_file(&metadata))
    }

    /// The stamp is taken before anything is read, so that a change during reading is noticed.
    pub(crate) fn open(path: &Path) -> io::Result<(File, Self)> {
        let file = File::open(path)?;
        let stamp = Self::of_file(&file.metadata()?);
        Ok((file, stamp))
    }

    pub fn of_file(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            version: metadata
                .modified()
                .map_or(Version::Unknown, |time| Version::Modified(nanoseconds(time))),
        }
    }

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

/// Since 1970; before it, negative.
fn nanoseconds(time: SystemTime) -> i64 {
    let limited = |nanoseconds| i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => limited(after.as_nanos()),
        Err(before) => -limited(before.duration().as_nanos()),
    }
}

/// Identifies the state of a remote shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub etag: Option<String>,
    /// As the server's text.
    pub modified: Option<String>,
    pub size: Option<u64>,
}

impl Identity {
    /// Whether both may be the same content: everything known of both is equal. ETags of both decide instead of times. If there is
    /// nothing to compare, as with a proxy's error page, they are not.
    pub fn matches(&self, other: &Self) -> bool {
        fn same<T: PartialEq>(one: &Option<T>, two: &Option<T>) -> Option<bool> {
            Some(one.as_ref()? == two.as_ref()?)
        }
        let size = same(&self.size, &other.size);
        let version =
            same(&self.etag, &other.etag).or_else(|| same(&self.modified, &other.modified));
        match (size, version) {
            (None, None) => self == other,
            _ => size != Some(false) && version != Some(false),
        }
    }

    /// The ETag, if it may be used in `If-Match`. A weak one may not.
    pub(crate) fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
    }
}

impl From<&Identity> for Stamp {
    fn from(identity: &Identity) -> Self {
        // Without an ETag, the text of `Last-Modified` takes its place.
        let version = identity.etag.as_ref().or(identity.modified.as_ref());
        Self {
            size: identity.size.unwrap_or(0),
            version: version.map_or(Version::Unknown, |text| Version::ETag(text.as_str().into())),
        }
    }
}
