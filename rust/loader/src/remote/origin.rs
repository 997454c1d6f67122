//! The origin of a shard, an HTTP server or an object store.

use std::sync::Arc;

use object_store::ObjectStore;
use parking_lot::Mutex;

use super::request::{Answer, Want};
use super::retry::{Failure, Verdict};
use super::{http, object_storage};
use crate::shards::Identity;

#[derive(Debug)]
pub(crate) enum Origin {
    Http {
        client: reqwest::Client,
        url: String,
        token: Option<String>,
        /// Where the last redirect to another server led. Other ranges are requested there.
        landed: Mutex<Option<reqwest::Url>>,
    },
    Object {
        store: Arc<dyn ObjectStore>,
        path: object_store::path::Path,
    },
}

impl Origin {
    /// If `known` is given, the shard must still be in that state.
    pub async fn get(&self, want: Want, known: Option<&Identity>) -> Result<Answer, Failure> {
        let answer = match self {
            Self::Http { client, url, token, landed } => {
                get_landed(client, (url, token.as_deref()), landed, want, known).await?
            }
            Self::Object { store, path } => {
                object_storage::get(store.as_ref(), path, want, known).await?
            }
        };
        match known {
            Some(known) if !known.matches(&answer.identity) => {
                Err(Failure::changed("it changes while it is read"))
            }
            _ => Ok(answer),
        }
    }
}

/// From the last redirect's URL, or the original one if that fails: a redirect may expire.
async fn get_landed(
    client: &reqwest::Client,
    (url, token): (&str, Option<&str>),
    landed: &Mutex<Option<reqwest::Url>>,
    want: Want,
    known: Option<&Identity>,
) -> Result<Answer, Failure> {
    let before = landed.lock().take();
    if let Some(there) = before {
        match http::get(client, there.as_str(), None, want, known).await {
            Ok((answer, _)) => {
                *landed.lock() = Some(there);
                return Ok(answer);
            }
            Err(failure) if failure.verdict != Verdict::Final => return Err(failure),
            Err(_) => {}
        }
    }
    let (answer, there) = http::get(client, url, token, want, known).await?;
    *landed.lock() = there;
    Ok(answer)
}
