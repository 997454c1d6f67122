//! The threads, connections and folder that all downloads share.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use object_store::ObjectStore;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::address::{Hub, Place, Scheme, resolve};
use super::cache::Cache;
use super::limits::Limits;
use super::origin::Origin;
use super::retry::{Failure, error_text};
use super::transfer::{RANGE_BYTES, Transfer};
use super::{http, object_storage};
use crate::config::StoreConfig;
use crate::error::FetchError;
use crate::os::private_folders;
use crate::shards::{Identity, Stamp};

const NETWORK_THREADS: usize = 2;
/// They unpack, read the output of commands, resolve host names and read headers.
const BLOCKING_THREADS: usize = 8;
/// Those that may wait for bytes. The others stay free, because the bytes may need a host name to be resolved.
const WAITING_THREADS: usize = 6;
/// How long closing a store waits for its threads.
const PATIENCE: Duration = Duration::from_millis(500);
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Dropping it stops its threads and their work.
#[derive(Debug)]
pub struct Fetcher {
    /// `None` after closing.
    pub(super) runtime: Mutex<Option<Runtime>>,
    pub(super) handle: Handle,
    pub(super) client: Arc<Client>,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) config: StoreConfig,
    pub(super) limits: Limits,
    pub(super) folder: PathBuf,
    pub(super) cache: Option<Cache>,
    pub(super) http: reqwest::Client,
    pub(super) hub: Hub,
    pub(super) objects: Mutex<HashMap<(Scheme, String), Arc<dyn ObjectStore>>>,
    pub(super) connections: Semaphore,
    /// One permit per thread that waits for bytes.
    pub(super) waiting: Semaphore,
}

/// A fetched shard: an uncompressed tar file.
#[derive(Debug)]
pub struct Fetched {
    /// Unless cached, it has no name and is deleted with its last handle, even after a crash.
    pub file: File,
    pub stamp: Stamp,
}

impl Fetched {
    pub(super) fn of(file: File, identity: &Identity) -> Self {
        let stamp = Stamp::from(identity);
        Self { file, stamp }
    }
}

impl Fetcher {
    pub fn open(config: &StoreConfig) -> Result<Self, FetchError> {
        let setup = |what: String| Failure::here(what).into_error("");
        // Sets the TLS provider of the process, unless another library has.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = Builder::new_multi_thread()
            .worker_threads(NETWORK_THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("prolip-store")
            .enable_all()
            .build()
            .map_err(|error| setup(format!("no threads for the network: {error}")))?;
        let folder = config.cache_dir.clone().unwrap_or_else(std::env::temp_dir);
        let unusable = |what: &str, error: std::io::Error| {
            let folder = folder.display();
            setup(format!("store.cache_dir {folder} {what}: {error}"))
        };
        // A folder created here is private to the user.
        let made = private_folders().recursive(true).create(&folder);
        made.map_err(|error| unusable("cannot be made", error))?;
        let cache = match config.cache_bytes {
            0 => None,
            limit => Some(
                Cache::new(folder.clone(), limit)
                    .map_err(|error| unusable("cannot keep shards", error))?,
            ),
        };
        if let Some(cache) = &cache {
            cache.trim();
        }
        let timeout = Duration::from_secs_f64(config.timeout_s);
        let client = Client {
            limits: Limits {
                retries: config.retries,
                timeout,
                min_rate: config.min_bytes_per_s,
                max_bytes: config.max_shard_bytes,
            },
            folder,
            cache,
            http: http::client(timeout).map_err(|failure| setup(failure.what))?,
            hub: Hub::from_env(),
            objects: Mutex::default(),
            connections: Semaphore::new(config.connections),
            waiting: Semaphore::new(WAITING_THREADS),
            config: config.clone(),
        };
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            client: Arc::new(client),
        })
    }

    pub(super) fn close(&self) {
        let runtime = self.runtime.lock().take();
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    /// Setting `cancelled` ends it early.
    pub(super) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        address: impl ToString,
        cancelled: &AtomicBool,
    ) -> Result<T, FetchError> {
        let cancel = async {
            while !cancelled.load(Ordering::Relaxed) {
                tokio::time::sleep(CANCEL_POLL).await;
            }
        };
        let done = self.handle.block_on(async {
            match select(pin!(work), pin!(cancel)).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => Err(Failure::terminal("its fetching was cancelled")),
            }
        });
        done.map_err(|failure| failure.into_error(address))
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.close();
    }
}

impl Client {
    pub(super) fn source(&self, url: &str) -> Result<Origin, Failure> {
        let place = resolve(url, &self.hub).map_err(|wrong| Failure::terminal(wrong.rule))?;
        Ok(match place {
            Place::Http { url, token } => {
                Origin::Http { client: self.http.clone(), url, token, landed: Mutex::default() }
            }
            Place::Object { scheme, bucket, path } => Origin::Object {
                store: self.object_store(scheme, &bucket)?,
                path: object_store::path::Path::parse(&path)
                    .map_err(|wrong| Failure::terminal(error_text(&wrong)))?,
            },
        })
    }

    pub(super) fn transfer<'store>(
        &'store self,
        source: &'store Origin,
        wanted: &'store [Range<u64>],
    ) -> Transfer<'store> {
        Transfer {
            source,
            wanted,
            connections: &self.connections,
            max_ranges: self.config.connections.div_ceil(2),
            range_bytes: RANGE_BYTES,
            limits: &self.limits,
        }
    }

    /// All shards of a bucket share one, with its connections and credentials.
    pub(super) fn object_store(
        &self,
        scheme: Scheme,
        bucket: &str,
    ) -> Result<Arc<dyn ObjectStore>, Failure> {
        let mut objects = self.objects.lock();
        let key = (scheme, bucket.to_owned());
        if let Some(store) = objects.get(&key) {
            return Ok(Arc::clone(store));
        }
        let store = object_storage::open(scheme, bucket, &self.limits)?;
        objects.insert(key, Arc::clone(&store));
        Ok(store)
    }

    pub(super) async fn may_wait(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let permit = self.waiting.acquire().await;
        permit.map_err(|_| Failure::terminal("the loader is closed"))
    }

    pub(super) fn file(&self) -> Result<File, Failure> {
        tempfile::tempfile_in(&self.folder)
            .map_err(|error| Failure::here(format!("no file can be made: {error}")))
    }
}
