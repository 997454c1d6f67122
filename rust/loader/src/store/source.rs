//! One request for a shard's bytes, whatever kind of server holds them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use object_store::ObjectStore;
use reqwest::header::HeaderMap;
use tokio::time::timeout;

use super::failure::{Failure, Verdict, retry_after};
use super::{http, object};
use crate::index::{Stamp, Version};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The bytes from one place up to another.
    Range(u64, u64),
    /// All of them, from a server that does not do ranges.
    Whole,
}

/// What tells one state of a shard from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The server's ETag.
    pub etag: Option<String>,
    /// When it was last changed, in the server's words.
    pub modified: Option<String>,
    /// Its bytes.
    pub size: Option<u64>,
}

impl Identity {
    /// Whether both may be the same bytes: nothing that both know differs. Where there are ETags, they decide.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(one: Option<&T>, two: Option<&T>) -> bool {
            one.zip(two).is_none_or(|(one, two)| one == two)
        }
        agree(self.size.as_ref(), other.size.as_ref())
            && match (&self.etag, &other.etag) {
                (Some(one), Some(two)) => one == two,
                _ => agree(self.modified.as_ref(), other.modified.as_ref()),
            }
    }

    /// The ETag where it may stand in `If-Match`, which a weak one may not.
    pub(crate) fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
    }
}

impl From<&Identity> for Stamp {
    fn from(identity: &Identity) -> Self {
        // Where there is no ETag, the time stands for it, in the server's words.
        let version = identity.etag.as_ref().or(identity.modified.as_ref());
        Self {
            size: identity.size.unwrap_or(0),
            version: version.map_or(Version::Unknown, |text| Version::ETag(text.as_str().into())),
        }
    }
}

/// The bytes of an answer as they come.
pub(crate) type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>;

/// The beginning of an answer.
pub(crate) struct Answer {
    pub identity: Identity,
    /// Place of the body's first byte in the shard.
    pub start: u64,
    /// Whether the server gave the range that was asked for, and not all bytes.
    pub ranged: bool,
    pub body: Body,
}

/// Where a shard's bytes are asked for.
#[derive(Debug)]
pub(crate) enum Source {
    Http {
        client: reqwest::Client,
        url: String,
        token: Option<String>,
        /// Where a redirection to another server led last: the shard's other ranges are asked for there.
        landed: Mutex<Option<reqwest::Url>>,
    },
    Object {
        store: Arc<dyn ObjectStore>,
        path: object_store::path::Path,
    },
}

impl Source {
    /// Asks for bytes; of `known` only the same state is taken.
    pub async fn get(&self, want: Want, known: Option<&Identity>) -> Result<Answer, Failure> {
        let answer = match self {
            Self::Http {
                client,
                url,
                token,
                landed,
            } => get_landed(client, (url, token.as_deref()), landed, want, known).await?,
            Self::Object { store, path } => object::get(store.as_ref(), path, want, known).await?,
        };
        match known {
            Some(known) if !known.matches(&answer.identity) => {
                Err(Failure::changed("it changes while it is read"))
            }
            _ => Ok(answer),
        }
    }
}

/// Asks where the last request ended up, or where the shard is said to be: the way there may be valid for a while only.
async fn get_landed(
    client: &reqwest::Client,
    (url, token): (&str, Option<&str>),
    landed: &Mutex<Option<reqwest::Url>>,
    want: Want,
    known: Option<&Identity>,
) -> Result<Answer, Failure> {
    let place = || landed.lock().unwrap_or_else(PoisonError::into_inner);
    let before = place().clone();
    if let Some(there) = before {
        let answer = http::get(client, there.as_str(), None, want, known).await;
        match answer {
            Ok((answer, _)) => return Ok(answer),
            Err(failure) => {
                *place() = None;
                if !matches!(failure.verdict, Verdict::Missing | Verdict::Final) {
                    return Err(failure);
                }
            }
        }
    }
    let (answer, there) = http::get(client, url, token, want, known).await?;
    *place() = there;
    Ok(answer)
}

/// Work that counts as broken when it takes longer.
pub(crate) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    timeout(limit, work)
        .await
        .map_err(|_| Failure::again(format!("no byte for {limit:?}")))
}

/// The pause that a server asks for.
pub(crate) fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers.get("retry-after")?.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_shard_is_told_from_the_same() {
        let identity = |etag: Option<&str>, modified: Option<&str>, size| Identity {
            etag: etag.map(str::to_owned),
            modified: modified.map(str::to_owned),
            size,
        };
        let first = identity(Some("\"a\""), Some("monday"), Some(3));
        for (other, same) in [
            (first.clone(), true),
            (identity(Some("\"b\""), Some("monday"), Some(3)), false),
            (identity(Some("\"a\""), Some("sunday"), Some(3)), true),
            (identity(Some("\"a\""), None, Some(4)), false),
            (identity(None, Some("monday"), Some(3)), true),
            (identity(None, Some("sunday"), Some(3)), false),
            (identity(None, None, None), true),
        ] {
            assert_eq!(first.matches(&other), same, "{other:?}");
            assert_eq!(other.matches(&first), same, "{other:?}");
        }
        assert_eq!(first.strong_etag(), Some("\"a\""));
        assert_eq!(identity(Some("W/\"a\""), None, None).strong_etag(), None);
    }
}
