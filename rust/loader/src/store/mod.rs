//! Where bytes come from that lie in no plain local file: HTTP servers, object stores, the hub, commands, compressed files.
//!
//! ```text
//! address → source   where requests go: HTTP, or the `object_store` crate with its credentials
//!             │
//!          transfer  ranges in parallel, continued where a connection breaks, tried again with pauses
//!             │
//!           sink     the file that they are written into; a compressed shard is unpacked behind them
//! ```
//!
//! A shard is brought here whole before it is read: training reads it in another order than it was written in, by many
//! threads. What is asked for again is checked to be of the same state (ETag, or size and time), so a shard is never put
//! together from two.

mod address;
mod bring;
mod cache;
mod examine;
mod failure;
mod glob;
mod http;
mod object;
mod pipe;
mod sink;
mod source;
mod spool;
mod transfer;

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use object_store::ObjectStore;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;

pub(crate) use address::without_secrets;
pub use address::{is_url, shown};
pub use examine::{examine, fetch_into};
pub use failure::FetchError;
pub use glob::settle;
pub use source::Identity;
pub use spool::{Order, Orders, Spool};

use crate::config::StoreConfig;
use crate::index::Stamp;
use crate::location::Location;
use address::{Hub, Place, Scheme};
use cache::Cache;
use failure::Failure;
use sink::Meter;
use source::Source;
use transfer::{Limits, RANGE_BYTES};

/// Threads that move bytes: they copy and do not compute.
const NETWORK_THREADS: usize = 2;
/// Threads that unpack, read what commands write, look up names and read headers.
const BLOCKING_THREADS: usize = 8;
/// Those of them that may wait for bytes. The bytes may need a name that is looked up: they must not take all threads.
const WAITING_THREADS: usize = 6;
/// How long the end of a store waits for its threads.
const PATIENCE: Duration = Duration::from_millis(500);
/// How soon a call that is cancelled returns.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Brings shards here. Dropping it ends its threads and whatever they were doing.
#[derive(Debug)]
pub struct Store {
    /// Nothing once it is closed.
    runtime: Mutex<Option<Runtime>>,
    handle: Handle,
    inner: Arc<Inner>,
}

/// What the store's tasks share.
#[derive(Debug)]
struct Inner {
    config: StoreConfig,
    limits: Limits,
    /// Folder of the files that are not kept, none of which has a name for longer than it takes to open it.
    folder: PathBuf,
    /// Where shards are kept after their use.
    cache: Option<Cache>,
    client: reqwest::Client,
    hub: Hub,
    objects: Mutex<HashMap<(Scheme, String), Arc<dyn ObjectStore>>>,
    connections: Semaphore,
    /// For every thread that waits for bytes.
    waiting: Semaphore,
}

/// A shard that is here: a tar without compression.
#[derive(Debug)]
pub struct Fetched {
    /// Its bytes. Unless the shard is kept, the file has no name and vanishes with the last handle to it, however the process
    /// ends.
    pub file: File,
    /// What tells the state of the shard that was read.
    pub stamp: Stamp,
}

impl Fetched {
    fn of(file: File, identity: &Identity) -> Self {
        let stamp = Stamp::from(identity);
        Self { file, stamp }
    }
}

impl Store {
    /// A store with threads of its own.
    ///
    /// # Errors
    /// The threads, the HTTP client or the folder cannot be set up.
    pub fn open(config: &StoreConfig) -> Result<Self, FetchError> {
        let setup = FetchError::setup;
        // The process's one default for TLS; another library may have chosen it already, which is as good.
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
            setup(format!("data.store.cache_dir {folder} {what}: {error}"))
        };
        // Where it is made here, it is the user's alone.
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
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
        let inner = Inner {
            limits: Limits {
                retries: config.retries,
                timeout: Duration::from_secs_f64(config.timeout_s),
                ranges: config.connections.div_ceil(2),
                range_bytes: RANGE_BYTES,
            },
            folder,
            cache,
            client: http::client().map_err(|failure| setup(failure.what))?,
            hub: Hub::from_env(),
            objects: Mutex::default(),
            connections: Semaphore::new(config.connections),
            waiting: Semaphore::new(WAITING_THREADS),
            config: config.clone(),
        };
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            inner: Arc::new(inner),
        })
    }

    /// Brings a shard here and waits for it; setting `cancelled` ends that.
    ///
    /// # Errors
    /// It cannot be brought, after all that was tried.
    pub fn fetch(
        &self,
        location: &Location,
        cancelled: &AtomicBool,
    ) -> Result<Fetched, FetchError> {
        let meter = Arc::new(Meter::default());
        let work = Box::pin(self.inner.bring(location, &meter));
        self.wait(work, cancelled).unwrap_or_else(|| {
            meter.call_off();
            Err(cancelled_error(&location.to_string()))
        })
    }

    /// The objects that a glob in an address of an object store matches, sorted; `*` and `?` do not cross a slash.
    ///
    /// # Errors
    /// The address is none of an object store, or its names cannot be listed.
    pub fn glob(&self, pattern: &str, cancelled: &AtomicBool) -> Result<Vec<String>, FetchError> {
        let work = Box::pin(self.inner.glob(pattern));
        self.wait(work, cancelled)
            .unwrap_or_else(|| Err(cancelled_error(&shown(pattern))))
    }

    /// Ends its threads and whatever they were doing.
    fn close(&self) {
        let runtime = self.runtime.lock();
        let runtime = runtime.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    /// Waits for work; nothing where it is cancelled before.
    fn wait<T>(&self, work: impl Future<Output = T> + Unpin, cancelled: &AtomicBool) -> Option<T> {
        let cancel = async {
            while !cancelled.load(Ordering::Relaxed) {
                tokio::time::sleep(CANCEL_POLL).await;
            }
        };
        self.handle.block_on(async {
            match select(work, Box::pin(cancel)).await {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => None,
            }
        })
    }
}

fn cancelled_error(address: &str) -> FetchError {
    Failure::terminal("its fetching was cancelled").into_error(address, 0)
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn source(&self, url: &str) -> Result<Source, FetchError> {
        let error = |failure: Failure| failure.into_error(&shown(url), 0);
        let terminal = |what: String| error(Failure::terminal(what));
        let place = address::resolve(url, &self.hub).map_err(|wrong| terminal(wrong.rule))?;
        Ok(match place {
            Place::Http { url, token } => Source::Http {
                client: self.client.clone(),
                url,
                token,
                landed: Mutex::default(),
            },
            Place::Object {
                scheme,
                bucket,
                path,
            } => Source::Object {
                store: self.object_store(scheme, &bucket).map_err(error)?,
                path: object_store::path::Path::parse(&path)
                    .map_err(|wrong| terminal(failure::words(&wrong)))?,
            },
        })
    }

    /// The store of a bucket; all shards of it share one, and with it connections and credentials.
    fn object_store(&self, scheme: Scheme, bucket: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (scheme, bucket.to_owned());
        if let Some(store) = objects.get(&key) {
            return Ok(Arc::clone(store));
        }
        let store = object::open(scheme, bucket)?;
        objects.insert(key, Arc::clone(&store));
        Ok(store)
    }
}
