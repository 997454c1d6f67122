//! Where a shard is: a path, an address or a command.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Printable;

/// Where a shard is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    /// A local file.
    File(PathBuf),
    /// An address: `http://`, `https://`, `s3://`, `gs://`, `az://` or `hf://`. Other schemes are refused when it is used.
    Url(String),
    /// The shell command of `pipe:COMMAND`, whose output is the shard.
    Pipe(String),
}

/// The compression of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `.gz` or `.tgz`.
    Gzip,
    /// `.zst`.
    Zstd,
}

impl Location {
    /// The location with this name, as written.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if let Some(command) = name.strip_prefix("pipe:") {
            return Self::Pipe(command.to_owned());
        }
        let is_url = name.split_once("://").is_some_and(|(scheme, _)| {
            scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if is_url { Self::Url(name.to_owned()) } else { Self::File(name.into()) }
    }

    /// The compression, from the end of the name. `None` for a plain shard and for a command.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        let name = match self {
            Self::File(path) => path.to_str()?,
            Self::Url(url) => before_query(url),
            Self::Pipe(_) => return None,
        };
        let ending = name.rsplit_once('.')?.1.to_ascii_lowercase();
        match ending.as_str() {
            "gz" | "tgz" => Some(Compression::Gzip),
            "zst" => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// The location as written, secrets included.
    #[must_use]
    pub fn written(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(url) => url.clone(),
            Self::Pipe(command) => format!("pipe:{command}"),
        }
    }

    /// The location as stored and shown: without passwords and signatures.
    #[must_use]
    pub fn without_secrets(&self) -> String {
        match self {
            Self::Url(url) => shown(url),
            Self::File(_) | Self::Pipe(_) => without_secrets(&self.written()),
        }
    }

    /// The path of a plain local file. `None` for everything that must be fetched or unpacked.
    #[must_use]
    pub fn plain_file(&self) -> Option<&Path> {
        match self {
            Self::File(path) if self.compression().is_none() => Some(path),
            _ => None,
        }
    }
}

/// For messages: on one line, [without secrets](Location::without_secrets).
impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(&self.without_secrets()).fmt(formatter)
    }
}

/// An address without query and fragment.
pub(crate) fn before_query(url: &str) -> &str {
    &url[..url.find(['?', '#']).unwrap_or(url.len())]
}

/// An address for messages: without user and password, and without query and fragment, which may be a signature.
#[must_use]
pub fn shown(url: &str) -> String {
    let plain = before_query(url);
    let more = if plain == url { "" } else { "?…" };
    let Some((scheme, rest)) = plain.split_once("://") else {
        return format!("{plain}{more}");
    };
    let host_end = rest.find('/').unwrap_or(rest.len());
    let host_start = rest[..host_end].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}{more}", &rest[host_start..])
}

/// The text, with every address in it as [`shown`].
pub(crate) fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let start = rest[..at]
            .rfind(|letter: char| !letter.is_ascii_alphanumeric())
            .map_or(0, |before| before + rest[before..].chars().next().map_or(1, char::len_utf8));
        let end_at = |stops: &str| {
            let stop = |letter: char| letter.is_whitespace() || stops.contains(letter);
            rest[at..].find(stop).map_or(rest.len(), |length| at + length)
        };
        let mut end = end_at("()<>\"'`,");
        if rest[at..end].contains(['?', '#']) {
            // A query may hold brackets and commas.
            end = rest[..end_at("<>\"'`")].trim_end_matches([')', ',', ':']).len();
        }
        out.push_str(&rest[..start]);
        out.push_str(&shown(&rest[start..end]));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displayed_locations_have_no_secrets() {
        let url = Location::Url("https://me:pass@h/a.tar?sig=1".to_owned());
        let pipe = Location::Pipe("curl https://h/a.tar?sig=1 | cat".to_owned());
        assert_eq!(url.to_string(), "https://h/a.tar?…");
        assert_eq!(url.written(), "https://me:pass@h/a.tar?sig=1");
        assert_eq!(pipe.to_string(), "pipe:curl https://h/a.tar?… | cat");
        let pattern = Location::of("{https://me:pass@h/a,https://me:pass@h/b}.tar");
        assert_eq!(pattern.to_string(), "{https://h/a,https://h/b}.tar");
        let odd = Location::File("a\n\u{1b}[1m é.tar".into());
        assert_eq!(odd.to_string(), "a\\n\\u{1b}[1m é.tar");
        assert_eq!(odd.written(), "a\n\u{1b}[1m é.tar");
        assert_eq!(pipe.written(), "pipe:curl https://h/a.tar?sig=1 | cat");
    }

    #[test]
    fn the_suffix_gives_the_compression() {
        let file = |name: &str| Location::File(name.into());
        for (location, expected) in [
            (file("a.tar"), None),
            (file("a.tar.gz"), Some(Compression::Gzip)),
            (file("a.TGZ"), Some(Compression::Gzip)),
            (Location::Url("s3://b/a.tar.zst".to_owned()), Some(Compression::Zstd)),
            (Location::Url("http://h/a.tar.gz?x=a.tar".to_owned()), Some(Compression::Gzip)),
            (Location::Pipe("cat a.tar.gz".to_owned()), None),
        ] {
            assert_eq!(location.compression(), expected, "{location}");
        }
    }

    #[test]
    fn secrets_are_removed_from_addresses() {
        for (text, expected) in [
            ("https://h/a.tar", "https://h/a.tar"),
            ("https://user:pass@h:1/a@b.tar", "https://h:1/a@b.tar"),
            ("https://h/a.tar?X-Amz-Signature=1", "https://h/a.tar?…"),
            ("s3://b/a.tar#x", "s3://b/a.tar?…"),
        ] {
            assert_eq!(shown(text), expected);
            assert_eq!(
                without_secrets(&format!("é cannot get ({text}): no")),
                format!("é cannot get ({expected}): no")
            );
        }
        assert_eq!(without_secrets("nothing"), "nothing");
        assert_eq!(
            without_secrets("$(curl https://h/a?x=(1),2&sig=3), b"),
            "$(curl https://h/a?…), b"
        );
        assert_eq!(without_secrets("http://u:p@h/a,http://u:q@h/b"), "http://h/a,http://h/b");
    }
}
