//! Where a shard is: a path, an address or a command.

use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    File(PathBuf),
    /// `http://`, `https://`, `s3://`, `gs://`, `az://` or `hf://`. Others are refused when it is used.
    Url(String),
    /// Of `pipe:COMMAND`: its output is the shard.
    Pipe(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `.gz` or `.tgz`.
    Gzip,
    /// `.zst`.
    Zstd,
}

impl Location {
    pub fn of(name: &str) -> Self {
        if let Some(command) = name.strip_prefix("pipe:") {
            return Self::Pipe(command.to_owned());
        }
        let is_url = name.split_once("://").is_some_and(|(scheme, _)| {
            scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if is_url { Self::Url(name.to_owned()) } else { Self::File(name.into()) }
    }

    /// By the end of the name. `None` for a plain shard and for a command.
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

    pub fn written(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(url) => url.clone(),
            Self::Pipe(command) => format!("pipe:{command}"),
        }
    }

    /// As stored and shown: without passwords and signatures.
    pub fn without_secrets(&self) -> String {
        match self {
            Self::Url(url) => shown(url),
            Self::File(_) | Self::Pipe(_) => without_secrets(&self.written()),
        }
    }

    /// `None` for what must be fetched or unpacked.
    pub fn plain_file(&self) -> Option<&Path> {
        match self {
            Self::File(path) if self.compression().is_none() => Some(path),
            _ => None,
        }
    }
}

/// For messages, [without secrets](Location::without_secrets).
impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.without_secrets())
    }
}

pub(crate) fn before_query(url: &str) -> &str {
    &url[..url.find(['?', '#']).unwrap_or(url.len())]
}

/// For messages: without user and password, and without query and fragment, which may be a signature.
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

/// Every address in the text becomes [`shown`].
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
#[path = "location_tests.rs"]
mod tests;
