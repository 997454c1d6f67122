//! Prefetches the shards of a run in the order of their use, and keeps each until its release.

use std::fs::File;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::fetcher::{Client, Fetched, Fetcher};
use super::meter::Meter;
use super::prefetch_state::{ShardState, State, end};
use super::provider::{ReadyShard, ShardProvider};
use super::retry::Failure;
use super::transfer::{joined, num_bytes};
use crate::config::StoreConfig;
use crate::error::{Error, FetchError};
use crate::shards::{Location, Regions, Stamp};

#[derive(Debug, Clone)]
pub struct ShardRequest {
    pub location: Location,
    /// Its stamp in the index. Without one, its headers are read once it is fetched.
    pub stamp: Option<Stamp>,
    /// The bytes of the samples that the run reads, ascending, so that others need not be fetched. Empty for all.
    pub wanted: Vec<Range<u64>>,
}

/// `None` for a plain local file.
pub type RequestOf = dyn Fn(u32) -> Option<ShardRequest> + Send + Sync;

/// By reading a fetched shard's headers.
pub type ScanShard = dyn Fn(u32, &File) -> Result<Regions, String> + Send + Sync;

type Wake = Box<dyn Fn() + Send + Sync>;

pub struct Prefetcher {
    store: Fetcher,
    shared: Arc<Shared>,
}

struct Shared {
    client: Arc<Client>,
    runtime: Handle,
    request_of: Box<RequestOf>,
    scan: Box<ScanShard>,
    state: Mutex<State>,
    wake: OnceLock<Wake>,
    closed: AtomicBool,
}

impl Prefetcher {
    pub fn open(
        config: &StoreConfig,
        request_of: Box<RequestOf>,
        scan: Box<ScanShard>,
    ) -> Result<Self, FetchError> {
        let store = Fetcher::open(config)?;
        let shared = Shared {
            client: Arc::clone(&store.client),
            runtime: store.handle.clone(),
            request_of,
            scan,
            state: Mutex::default(),
            wake: OnceLock::new(),
            closed: AtomicBool::new(false),
        };
        Ok(Self { store, shared: Arc::new(shared) })
    }
}

impl ShardProvider for Prefetcher {
    fn request(&self, shards: &[u32]) {
        let mut state = self.shared.state.lock();
        for &shard in shards {
            state.queue(shard);
        }
        self.shared.pump(&mut state);
    }

    fn is_ready(&self, shard: u32) -> bool {
        let mut state = self.shared.state.lock();
        match state.shards.get(&shard) {
            Some(ShardState::Here { .. } | ShardState::Failed(_)) => return true,
            Some(ShardState::Fetching { .. }) => return false,
            Some(ShardState::Queued) => {}
            None => state.queue(shard),
        }
        // A batch waits for it, so the disk limit must not delay it.
        state.wanted.insert(shard);
        self.shared.pump(&mut state);
        // `pump` forgets a plain local file.
        !state.shards.contains_key(&shard)
    }

    fn length(&self, shard: u32) -> Option<Result<u64, Error>> {
        let state = self.shared.state.lock();
        if let Some(&length) = state.lengths.get(&shard) {
            return Some(Ok(length));
        }
        match state.shards.get(&shard) {
            Some(ShardState::Failed(error)) => Some(Err(error.clone().into())),
            _ => None,
        }
    }

    fn get(&self, shard: u32) -> Result<Option<ReadyShard>, FetchError> {
        match self.shared.state.lock().shards.get(&shard) {
            Some(ShardState::Here { lent, .. }) => Ok(Some(lent.clone())),
            Some(ShardState::Failed(error)) => Err(error.clone()),
            _ => Ok(None),
        }
    }

    fn release(&self, shard: u32) {
        let mut state = self.shared.state.lock();
        let held = state.shards.remove(&shard);
        state.forget(shard);
        end(held);
        self.shared.pump(&mut state);
        drop(state);
        if let Some(cache) = &self.shared.client.cache {
            cache.trim();
        }
    }

    fn on_change(&self, wake: Wake) {
        // Set once, before the run starts.
        drop(self.shared.wake.set(wake));
    }

    fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        let mut state = self.shared.state.lock();
        state.queue.clear();
        let shards = std::mem::take(&mut state.shards);
        drop(state);
        shards.into_values().for_each(|held| end(Some(held)));
        self.store.close();
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.close();
    }
}

/// Turns a panic into a failure. Otherwise the batch that waits for the shard would wait forever.
async fn caught<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|thrown| {
        let panicked = Error::panicked("fetch", thrown.as_ref());
        Err(Failure::here(panicked.to_string()))
    })
}

async fn checked(
    shared: Arc<Shared>,
    shard: u32,
    fetched: Fetched,
    indexed: Option<&Stamp>,
) -> Result<ReadyShard, Failure> {
    let file = Arc::new(fetched.file);
    if let Some(stamp) = indexed {
        return match stamp.change(&fetched.stamp) {
            Some(what) => {
                Err(Failure::terminal(format!("it has changed since it was indexed: {what}")))
            }
            None => Ok(ReadyShard { file, regions: None }),
        };
    }
    let read = tokio::task::spawn_blocking(move || {
        let regions = (shared.scan)(shard, &file).map_err(Failure::terminal)?;
        Ok(ReadyShard { file, regions: Some(Arc::new(regions)) })
    });
    read.await
        .map_err(|error| Failure::terminal(format!("its headers could not be read: {error}")))?
}

impl Shared {
    /// Starts downloads, as far as there is room: those that a batch waits for, then the others in order.
    fn pump(self: &Arc<Self>, state: &mut State) {
        while !self.closed.load(Ordering::Relaxed) {
            let wanted = state.wanted.iter().next().copied();
            let Some(shard) = wanted.or_else(|| state.queue.front().copied()) else {
                return;
            };
            let Some(mut request) = (self.request_of)(shard) else {
                state.forget(shard);
                state.shards.remove(&shard);
                continue;
            };
            let is_plain_url = matches!(request.location, Location::Url(_))
                && request.location.compression().is_none();
            // A cache keeps whole shards, for the next epochs.
            let stamp = request.stamp.as_ref();
            let stamp = stamp.filter(|_| is_plain_url && self.client.cache.is_none());
            request.wanted = joined(&request.wanted, stamp.map_or(0, |stamp| stamp.size));
            let need = match (state.sizes.get(&shard), &request.stamp) {
                (Some(&size), _) => size,
                (None, Some(stamp)) if request.location.compression().is_none() => {
                    stamp.size.min(num_bytes(&request.wanted))
                }
                // The size of a compressed shard says little about its unpacked size.
                (None, stamp) => state.largest.max(stamp.as_ref().map_or(0, |stamp| stamp.size)),
            };
            let ahead = wanted.is_none();
            if ahead && !self.has_room(state, need) {
                return;
            }
            state.forget(shard);
            let (meter, task) = self.begin(shard, request, need);
            state.shards.insert(shard, ShardState::Fetching { meter, task });
        }
    }

    fn begin(
        self: &Arc<Self>,
        shard: u32,
        request: ShardRequest,
        need: u64,
    ) -> (Arc<Meter>, AbortHandle) {
        let meter = Arc::new(Meter::expecting(need));
        let (shared, task_meter) = (Arc::clone(self), Arc::clone(&meter));
        let task = self.runtime.spawn(async move {
            let ShardRequest { location, stamp, wanted } = request;
            let work = async {
                let fetched = shared.client.download(&location, &wanted, &task_meter).await?;
                checked(Arc::clone(&shared), shard, fetched, stamp.as_ref()).await
            };
            let arrival = caught(work).await;
            let arrival = arrival.map_err(|failure| failure.into_error(location));
            shared.arrived(shard, &task_meter, arrival);
        });
        (meter, task.abort_handle())
    }

    /// Whether another shard of `need` bytes fits beside those on disk.
    fn has_room(&self, state: &State, need: u64) -> bool {
        let is_fetching = |held: &&ShardState| matches!(held, ShardState::Fetching { .. });
        let fetching = state.shards.values().filter(is_fetching).count();
        let config = &self.client.config;
        // The size of shards is unknown before the first one has arrived, so fetch that one alone.
        let unknown = need == 0 && fetching > 0;
        fetching < config.connections
            && !unknown
            && state.bytes().saturating_add(need) <= config.read_ahead_bytes
    }

    fn arrived(
        self: &Arc<Self>,
        shard: u32,
        meter: &Arc<Meter>,
        arrival: Result<ReadyShard, FetchError>,
    ) {
        let mut state = self.state.lock();
        let ours = matches!(state.shards.get(&shard), Some(ShardState::Fetching { meter: now, .. }) if Arc::ptr_eq(now, meter));
        if !ours {
            return;
        }
        let held = match arrival {
            Ok(lent) => {
                if let Some(regions) = &lent.regions {
                    state.lengths.insert(shard, regions.len() as u64);
                }
                let bytes = meter.bytes();
                state.largest = state.largest.max(bytes);
                state.sizes.insert(shard, bytes);
                ShardState::Here { meter: Arc::clone(meter), lent }
            }
            Err(error) => ShardState::Failed(error),
        };
        state.shards.insert(shard, held);
        self.pump(&mut state);
        drop(state);
        if let Some(wake) = self.wake.get()
            && !self.closed.load(Ordering::Relaxed)
        {
            wake();
        }
    }
}
