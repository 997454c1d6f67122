//! Resolves an address to the place that its bytes are requested from.

use std::path::{Path, PathBuf};

use crate::error::ConfigError;
use crate::shards::shown;

/// The hub of `hf://`, unless HF_ENDPOINT names another.
const HUB: &str = "https://huggingface.co";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Http { url: String, token: Option<String> },
    Object { scheme: Scheme, bucket: String, path: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    S3,
    Gs,
    Az,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Hub {
    pub endpoint: Option<String>,
    pub token: Option<String>,
}

impl Hub {
    pub fn from_env() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    /// As in `huggingface_hub`: the token is in the environment or in the file of `hf auth login`.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let home = || {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.or_else(|| Some(Path::new(&variable("HOME")?).join(".cache")))?;
            Some(cache.join("huggingface"))
        };
        let file = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| {
            let home = variable("HF_HOME").map(PathBuf::from).or_else(home)?;
            Some(home.join("token"))
        });
        let saved = || std::fs::read_to_string(file?).ok();
        let token = variable("HF_TOKEN").or_else(saved);
        Self {
            endpoint: variable("HF_ENDPOINT"),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
        }
    }
}

pub(crate) fn resolve(url: &str, hub: &Hub) -> Result<Place, ConfigError> {
    let wrong = |rule: &str| ConfigError::new("shards", format!("{:?}", shown(url)), rule);
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(Place::Http { url: url.to_owned(), token: None });
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it is no address"))?;
    let scheme = match scheme {
        "hf" => return resolve_hub(rest, hub).ok_or_else(|| {
            wrong("an address of the hub is hf://datasets/OWNER/NAME/PATH, with @REVISION behind NAME if wanted")
        }),
        "s3" => Scheme::S3,
        "gs" => Scheme::Gs,
        "az" => Scheme::Az,
        _ => return Err(wrong("must begin with http, https, s3, gs, az or hf")),
    };
    let object =
        rest.split_once('/').filter(|(bucket, path)| !bucket.is_empty() && !path.is_empty());
    let (bucket, path) = object.ok_or_else(|| wrong("it must name a bucket and a path"))?;
    Ok(Place::Object { scheme, bucket: bucket.to_owned(), path: path.to_owned() })
}

/// The URL of the file at `datasets/OWNER/NAME[@REVISION]/PATH`. In a revision such as refs/pr/1 each slash is written as `%2F`.
fn resolve_hub(rest: &str, hub: &Hub) -> Option<Place> {
    let mut parts = rest.splitn(4, '/');
    let (kind, owner, name, path) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    if kind != "datasets" || [owner, name, revision, path].contains(&"") {
        return None;
    }
    let endpoint = hub.endpoint.as_deref().unwrap_or(HUB).trim_end_matches('/');
    Some(Place::Http {
        url: format!("{endpoint}/datasets/{owner}/{name}/resolve/{revision}/{path}"),
        token: hub.token.clone(),
    })
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
