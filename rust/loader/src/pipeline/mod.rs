//! A run of the loader: threads turn samples into batches, and the reader takes these in order.

mod array_pool;
mod bad_samples;
mod batch;
mod batch_text;
mod dataset;
mod decode_only;
mod lookahead;
mod planner;
mod row_slots;
mod shard_weights;
mod state;
mod stats;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use prolip_image::{Preparation, ValueTable};

pub use array_pool::{BatchArrays, Lease};
pub use bad_samples::{BadSample, BadSamples};
pub use batch::Batch;
pub use dataset::{Dataset, Selection};
pub use decode_only::{DecodeOnly, decode_only};
pub use state::Next;
pub use stats::{LoaderStats, Stage, StageStats};

use crate::error::Error;
use crate::order::Cursor;
use crate::remote::ShardProvider;
use state::Shared;

/// Dropping it ends its threads and waits for them.
pub struct Pipeline {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pipeline {
    /// With a table, images hold its values instead of bytes.
    pub fn start(
        dataset: Arc<Dataset>,
        from: &Cursor,
        table: Option<ValueTable>,
    ) -> Result<Self, Error> {
        let provider = dataset.provider()?;
        Self::start_with(dataset, provider, from, table)
    }

    /// As [`Self::start`], with another provider of shards, which closes with the pipeline.
    pub fn start_with(
        dataset: Arc<Dataset>,
        provider: Option<Arc<dyn ShardProvider>>,
        from: &Cursor,
        table: Option<ValueTable>,
    ) -> Result<Self, Error> {
        let num_threads = dataset.config.num_threads;
        let pipeline = Self {
            shared: Shared::new(dataset, provider, from, table),
            threads: Mutex::new(Vec::with_capacity(num_threads)),
        };
        for number in 0..num_threads {
            let shared = Arc::clone(&pipeline.shared);
            let thread = std::thread::Builder::new().name(format!("prolip-{number}"));
            let handle = thread.spawn(move || worker::run(&shared)).map_err(Error::Spawn)?;
            pipeline.threads.lock().push(handle);
        }
        Ok(pipeline)
    }

    /// The next batch if it is ready within `timeout`.
    pub fn next_within(&self, timeout: Duration) -> Result<Next, Arc<Error>> {
        self.shared.next_within(timeout)
    }

    pub fn preparation(&self) -> &Preparation {
        &self.shared.preparation
    }

    pub fn stats(&self) -> LoaderStats {
        self.shared.stats()
    }

    /// Ends the threads, waits for them and frees all memory that no batch uses. A waiting reader gets [`Error::Closed`]. A
    /// second call during the first returns before the threads have ended.
    pub fn close(&self) {
        self.shared.stop(Error::Closed);
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // The thread has reported its panic as the run's error.
            drop(thread.join());
        }
        self.shared.free();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.close();
    }
}
