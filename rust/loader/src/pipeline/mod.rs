//! A run: threads turn the samples of a data set into batches, and the reader takes the batches in order.

mod bad_samples;
mod batch;
mod batch_text;
mod dataset;
mod decode_only;
mod in_progress;
mod lookahead;
mod memory_pool;
mod planner;
mod row;
mod row_slots;
mod shard_weights;
mod state;
mod stats;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

pub use bad_samples::{Tally, max_substitutes};
pub use batch::Batch;
pub use dataset::Loader;
pub use decode_only::{DecodeOnly, decode_only};
pub use memory_pool::{Lease, Memory, Pool};
pub use state::Next;
pub use stats::{Counters, LoaderStats, Stage, StageStats};

use crate::error::Error;
use crate::order::Cursor;
use crate::remote::ShardProvider;
use state::Shared;

/// A run through the epochs. Dropping it ends its threads and waits for them.
#[derive(Debug)]
pub struct Pipeline {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pipeline {
    /// Starts the threads at a cursor.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(loader: Arc<Loader>, from: &Cursor) -> Result<Self, Error> {
        let provider = loader.provider()?;
        Self::start_with(loader, provider, from)
    }

    /// Starts the threads at a cursor, with shards that another provider brings; closing the pipeline closes it.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start_with(
        loader: Arc<Loader>,
        provider: Arc<dyn ShardProvider>,
        from: &Cursor,
    ) -> Result<Self, Error> {
        let num_threads = loader.config.num_threads;
        let pipeline = Self {
            shared: Shared::new(loader, provider, from),
            threads: Mutex::new(Vec::with_capacity(num_threads)),
        };
        for number in 0..num_threads {
            let shared = Arc::clone(&pipeline.shared);
            let thread = std::thread::Builder::new().name(format!("prolip-{number}"));
            let handle = thread
                .spawn(move || worker::run(&shared))
                .map_err(|error| Error::Spawn(Arc::new(error)))?;
            pipeline.threads.lock().push(handle);
        }
        Ok(pipeline)
    }

    /// The next batch, if it is there within `timeout`.
    ///
    /// # Errors
    /// What stopped the run, behind the batches before it; the same on every further call.
    pub fn next_within(&self, timeout: Duration) -> Result<Next, Arc<Error>> {
        self.shared.next_within(timeout)
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> LoaderStats {
        self.shared.stats()
    }

    /// Ends the threads, waits for them and frees the memory that no batch holds. Whoever waits for a batch gets
    /// [`Error::Closed`]. May be called again; a call during another returns before the threads have ended.
    pub fn close(&self) {
        self.shared.stop(Error::Closed);
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A panic inside the thread was caught there and is the pipeline's error.
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
