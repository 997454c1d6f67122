//! Checks addresses at opening, and expands globs in object stores. Plain servers cannot list their files.

use std::sync::atomic::AtomicBool;

use glob::{MatchOptions, Pattern};

use super::address::{Hub, Place, Scheme, resolve};
use super::fetcher::{Client, Fetcher};
use super::retry::Failure;
use super::{object_storage, pipe};
use crate::config::StoreConfig;
use crate::error::{ConfigError, Error};
use crate::shards::{Location, before_query};

pub fn check_addresses(shards: &[Location], config: &StoreConfig) -> Result<(), ConfigError> {
    let hub = Hub::from_env();
    shards.iter().try_for_each(|shard| address_of(shard, config, &hub).map(drop))
}

fn address_of(
    shard: &Location,
    config: &StoreConfig,
    hub: &Hub,
) -> Result<Option<Place>, ConfigError> {
    let wrong = |rule| Err(ConfigError::new(FIELD, format!("{:?}", shard.to_string()), rule));
    match shard {
        Location::Pipe(_) if !config.allow_pipe => wrong(pipe::NOT_ALLOWED),
        Location::Url(url) => match resolve(url, hub)? {
            Place::Http { url, .. } if before_query(&url).contains('*') => wrong(NO_GLOB),
            place => Ok(Some(place)),
        },
        _ => Ok(None),
    }
}

pub fn settle(
    shards: Vec<Location>,
    config: &StoreConfig,
    cancelled: &AtomicBool,
) -> Result<Vec<Location>, Error> {
    let (mut settled, mut store) = (Vec::with_capacity(shards.len()), None);
    let hub = Hub::from_env();
    for shard in shards {
        let place = address_of(&shard, config, &hub)?;
        match (&shard, place) {
            (Location::Url(url), Some(Place::Object { scheme, bucket, path }))
                if path.contains(WILD) =>
            {
                let store = match &store {
                    Some(store) => store,
                    None => store.insert(Fetcher::open(config)?),
                };
                let matching = store.client.glob(scheme, &bucket, &path);
                let found = store.wait(matching, &shard, cancelled)?;
                if found.is_empty() {
                    let shown = format!("{:?}", shard.to_string());
                    return Err(ConfigError::new(FIELD, shown, "it matches no object").into());
                }
                let root = &url[..url.len() - path.len()];
                let urls = found.iter().map(|name| format!("{root}{name}"));
                settled.extend(urls.map(Location::Url));
            }
            _ => settled.push(shard),
        }
    }
    Ok(settled)
}

const FIELD: &str = "shards";
const WILD: [char; 3] = ['*', '?', '['];
const NO_GLOB: &str = "only object stores (s3, gs, az) can be searched with * ? [; elsewhere name the shards, with braces if \
                       they are many";

impl Client {
    /// Paths in a bucket, sorted. `*` and `?` don't match a slash.
    async fn glob(&self, scheme: Scheme, bucket: &str, path: &str) -> Result<Vec<String>, Failure> {
        let matcher = Pattern::new(path).map_err(|error| Failure::terminal(error.to_string()))?;
        let wild = path.find(WILD).unwrap_or(path.len());
        let prefix = path[..wild].rfind('/').map_or("", |slash| &path[..slash]);
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
        let store = self.object_store(scheme, bucket)?;
        let mut names = object_storage::list(&*store, prefix).await?;
        names.retain(|name| matcher.matches_with(name, options));
        Ok(names)
    }
}
