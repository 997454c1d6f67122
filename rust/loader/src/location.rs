//! Where a shard lies.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::store::{shown, without_secrets};

/// A file, an address, or a command that writes the shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    /// A local file.
    File(PathBuf),
    /// `http://`, `https://`, `s3://`, `gs://`, `az://` or `hf://`.
    Url(String),
    /// The command of `pipe:COMMAND`, run by the shell.
    Pipe(String),
}

/// How a shard's bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `.gz` or `.tgz`.
    Gzip,
    /// `.zst`.
    Zstd,
}

impl Location {
    /// How the shard is compressed, by the end of its name; nothing where it is not, and for commands.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        let name = match self {
            Self::File(path) => path.to_str()?,
            Self::Url(url) => url.split(['?', '#']).next()?,
            Self::Pipe(_) => return None,
        };
        let ending = name.rsplit_once('.')?.1.to_ascii_lowercase();
        match ending.as_str() {
            "gz" | "tgz" => Some(Compression::Gzip),
            "zst" => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// The location as it was written, with whatever is secret in it.
    #[must_use]
    pub fn written(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(url) => url.clone(),
            Self::Pipe(command) => format!("pipe:{command}"),
        }
    }

    /// The path where the shard is a plain local file, which can be read anywhere at any time.
    #[must_use]
    pub fn plain_file(&self) -> Option<&Path> {
        match self {
            Self::File(path) if self.compression().is_none() => Some(path),
            _ => None,
        }
    }
}

/// For messages: without what may be a password or a signature.
impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Url(url) => formatter.write_str(&shown(url)),
            Self::Pipe(command) => write!(formatter, "pipe:{}", without_secrets(command)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_secrets() {
        let url = Location::Url("https://me:pass@h/a.tar?sig=1".to_owned());
        let pipe = Location::Pipe("curl https://h/a.tar?sig=1 | cat".to_owned());
        assert_eq!(url.to_string(), "https://h/a.tar?…");
        assert_eq!(url.written(), "https://me:pass@h/a.tar?sig=1");
        assert_eq!(pipe.to_string(), "pipe:curl https://h/a.tar?… | cat");
        assert_eq!(pipe.written(), "pipe:curl https://h/a.tar?sig=1 | cat");
    }

    #[test]
    fn the_suffix_says_how_a_shard_is_compressed() {
        let file = |name: &str| Location::File(name.into());
        for (location, expected) in [
            (file("a.tar"), None),
            (file("a.tar.gz"), Some(Compression::Gzip)),
            (file("a.TGZ"), Some(Compression::Gzip)),
            (
                Location::Url("s3://b/a.tar.zst".to_owned()),
                Some(Compression::Zstd),
            ),
            (
                Location::Url("http://h/a.tar.gz?x=a.tar".to_owned()),
                Some(Compression::Gzip),
            ),
            (Location::Pipe("cat a.tar.gz".to_owned()), None),
        ] {
            assert_eq!(location.compression(), expected, "{location}");
        }
    }
}
