//! Resolves an address to the place that its bytes are requested from.

use std::path::{Path, PathBuf};

use crate::error::ConfigError;
use crate::shards::shown;

/// The hub of `hf://`, unless HF_ENDPOINT names another.
const HUB: &str = "https://huggingface.co";

/// Where an address leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A URL on a server, and the token to send.
    Http { url: String, token: Option<String> },
    /// An object: scheme, bucket or container, path in it.
    Object { scheme: Scheme, bucket: String, path: String },
}

/// Kinds of object stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    S3,
    Gs,
    Az,
}

/// Settings of the hub, from the environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hub {
    pub endpoint: Option<String>,
    pub token: Option<String>,
}

impl Hub {
    pub fn from_env() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    /// As in `huggingface_hub`: the token comes from the environment, or from the file of `hf auth login`.
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

/// Resolves an address.
///
/// # Errors
/// It has no bucket, no path, or an unknown scheme.
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

/// The hub's URL for the file at `datasets/OWNER/NAME[@REVISION]/PATH`. In a revision such as refs/pr/1 each slash is written as
/// `%2F`.
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
mod tests {
    use super::*;

    #[test]
    fn hub_addresses_become_file_urls() {
        let resolved = |url: &str, hub: &Hub| match resolve(url, hub) {
            Ok(Place::Http { url, token }) => Some((url, token)),
            _ => None,
        };
        let hub = Hub::default();
        for (url, expected) in [
            (
                "hf://datasets/o/n/a/b-0.tar",
                Some("https://huggingface.co/datasets/o/n/resolve/main/a/b-0.tar"),
            ),
            (
                "hf://datasets/o/n@v1/b.tar",
                Some("https://huggingface.co/datasets/o/n/resolve/v1/b.tar"),
            ),
            (
                "hf://datasets/o/n@refs%2Fpr%2F1/b.tar",
                Some("https://huggingface.co/datasets/o/n/resolve/refs%2Fpr%2F1/b.tar"),
            ),
            ("hf://datasets/o/n", None),
            ("hf://datasets/o//b.tar", None),
            ("hf://o/n/x/b.tar", None),
        ] {
            let found = resolved(url, &hub).map(|(url, _)| url);
            assert_eq!(found.as_deref(), expected, "{url}");
        }
        let other = Hub {
            endpoint: Some("http://127.0.0.1:9/".to_owned()),
            token: Some("secret".to_owned()),
        };
        assert_eq!(
            resolved("hf://datasets/o/n/b.tar", &other),
            Some((
                "http://127.0.0.1:9/datasets/o/n/resolve/main/b.tar".to_owned(),
                Some("secret".to_owned())
            ))
        );
        // The token is sent only to the hub.
        assert_eq!(resolved("http://h/b.tar", &other).unwrap().1, None);
    }

    #[test]
    fn the_hubs_token_is_read_from_the_usual_places() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path).to_str().unwrap().to_owned();
        std::fs::create_dir_all(at("home/.cache/huggingface")).unwrap();
        std::fs::write(at("home/.cache/huggingface/token"), "saved\n").unwrap();
        std::fs::write(at("token"), "other").unwrap();
        std::fs::write(at("empty"), "\n").unwrap();
        let home = ("HOME", at("home"));
        for (variables, expected) in [
            (vec![], None),
            (vec![home.clone()], Some("saved")),
            (vec![home.clone(), ("HF_TOKEN", "mine".to_owned())], Some("mine")),
            (vec![home.clone(), ("HF_HOME", at(""))], Some("other")),
            (vec![home.clone(), ("HF_TOKEN_PATH", at("token"))], Some("other")),
            (vec![home.clone(), ("HF_TOKEN_PATH", at("empty"))], None),
            (vec![home, ("XDG_CACHE_HOME", at("none"))], None),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| value.clone())
            };
            assert_eq!(Hub::of(variable).token.as_deref(), expected, "{variables:?}");
        }
    }

    #[test]
    fn object_addresses_need_a_bucket_and_a_path() {
        assert_eq!(
            resolve("s3://b/p/q.tar", &Hub::default()).unwrap(),
            Place::Object {
                scheme: Scheme::S3,
                bucket: "b".to_owned(),
                path: "p/q.tar".to_owned()
            }
        );
        for url in ["s3://b", "gs:///p", "az://b/", "ftp://h/p"] {
            let error = resolve(url, &Hub::default()).unwrap_err();
            assert_eq!(error.field, "shards", "{url}");
        }
    }
}
