//! The stages, joined: threads fill batches slot by slot, the reader takes them in order.
//!
//! Threads meet at a lock when a batch is begun and when it is finished, never for a sample.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Pool, Row, Slots};
use crate::error::Error;
use crate::loader::Loader;
use crate::order::{BatchPlan, Cursor, EpochOrder, Planner};
use crate::stats::{Counters, LoaderStats, Stage};
use crate::worker;

/// A batch that threads fill together.
#[derive(Debug)]
pub(crate) struct Filling {
    /// Its place among the batches of the run.
    pub number: u64,
    /// Where it stands in the epoch.
    pub plan: BatchPlan,
    /// The sample that belongs in each slot.
    pub samples: Vec<u64>,
    /// The slots.
    pub slots: Slots,
}

/// What the reader got.
#[derive(Debug)]
pub enum Next {
    /// The next batch.
    Batch(Box<Batch>),
    /// There are no more.
    End,
    /// None within the time.
    Waiting,
}

#[derive(Debug)]
struct State {
    planner: Planner,
    /// The order of the epoch that is being planned.
    order: Option<(u64, EpochOrder)>,
    /// The batch that still has, or last had, slots to give out.
    current: Option<Arc<Filling>>,
    begun: u64,
    planned_all: bool,
    finished: BTreeMap<u64, Batch>,
    /// Batches that the reader has passed, empty ones included.
    taken: u64,
    epoch_taken: u64,
    spare_rows: Vec<Vec<Row>>,
    error: Option<Arc<Error>>,
}

/// What the threads and the reader share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub loader: Arc<Loader>,
    pub counters: Arc<Counters>,
    pool: Arc<Pool>,
    stopping: AtomicBool,
    state: Mutex<State>,
    /// Threads wait here for a batch to begin.
    work: Condvar,
    /// The reader waits here.
    ready: Condvar,
}

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
    pub fn start(loader: Arc<Loader>, from: Cursor) -> Result<Self, Error> {
        let config = &loader.config;
        let state = State {
            planner: Planner::new(loader.split, config.num_epochs, from),
            order: None,
            current: None,
            begun: 0,
            planned_all: false,
            finished: BTreeMap::new(),
            taken: 0,
            epoch_taken: from.epoch,
            spare_rows: Vec::new(),
            error: None,
        };
        let num_threads = config.num_threads;
        let shared = Arc::new(Shared {
            // One more than are prefetched: the batch that the reader works on.
            pool: Pool::new(config.prefetch_batches + 1),
            loader,
            counters: Arc::default(),
            stopping: AtomicBool::new(false),
            state: Mutex::new(state),
            work: Condvar::new(),
            ready: Condvar::new(),
        });
        let pipeline = Self {
            shared,
            threads: Mutex::new(Vec::with_capacity(num_threads)),
        };
        for number in 0..num_threads {
            let shared = Arc::clone(&pipeline.shared);
            let thread = std::thread::Builder::new().name(format!("prolip-{number}"));
            let handle = thread
                .spawn(move || worker::run(&shared))
                .map_err(|error| Error::Spawn(Arc::new(error)))?;
            lock(&pipeline.threads).push(handle);
        }
        Ok(pipeline)
    }

    /// The next batch, if it is there within `timeout`.
    ///
    /// # Errors
    /// What stopped the threads; the same on every further call.
    pub fn next_within(&self, timeout: Duration) -> Result<Next, Arc<Error>> {
        self.shared.next_within(timeout)
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> LoaderStats {
        let ready = lock(&self.shared.state).finished.len() as u64;
        self.shared.counters.snapshot(ready)
    }

    /// Ends the threads and waits for them. Whoever waits for a batch gets [`Error::Closed`]. May be called again.
    pub fn close(&self) {
        self.shared.stop(Error::Closed);
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A panic inside the thread was caught there and is the pipeline's error.
            drop(thread.join());
        }
        let mut state = lock(&self.shared.state);
        state.finished.clear();
        state.spare_rows.clear();
        state.current = None;
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Whether threads should end as soon as they can.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends the run; the first reason is the one that the reader sees.
    pub fn stop(&self, error: Error) {
        self.stopping.store(true, Ordering::Relaxed);
        lock(&self.state)
            .error
            .get_or_insert_with(|| Arc::new(error));
        self.work.notify_all();
        self.ready.notify_all();
    }

    /// A batch with slots to fill; nothing when the run is over.
    pub fn batch_with_work(&self) -> Option<Arc<Filling>> {
        let mut state = lock(&self.state);
        let begun_waiting = Instant::now();
        let mut waited = false;
        let found = loop {
            if self.is_stopping() {
                break None;
            }
            if let Some(current) = state
                .current
                .as_ref()
                .filter(|current| current.slots.has_work())
            {
                break Some(Arc::clone(current));
            }
            let free_places =
                state.begun - state.taken < self.loader.config.prefetch_batches as u64;
            if free_places && !state.planned_all {
                let next = self.begin(&mut state);
                // Either there is a batch for all, or all may go home.
                self.work.notify_all();
                self.ready.notify_all();
                break next;
            }
            if state.planned_all {
                break None;
            }
            waited = true;
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        if waited {
            self.counters.passed(Stage::Idle, begun_waiting);
        }
        found
    }

    fn begin(&self, state: &mut State) -> Option<Arc<Filling>> {
        let Some(plan) = state.planner.next() else {
            state.planned_all = true;
            return None;
        };
        let (config, index) = (&self.loader.config, &self.loader.index);
        let order = match &mut state.order {
            Some((epoch, order)) if *epoch == plan.epoch => order,
            old => {
                let order = EpochOrder::new(
                    index.starts(),
                    config.seed,
                    config.shuffle_window,
                    plan.epoch,
                );
                &mut old.insert((plan.epoch, order)).1
            }
        };
        let samples: Vec<u64> = plan
            .positions
            .clone()
            .map(|position| order.sample_at(position))
            .collect();
        let mut rows = state.spare_rows.pop().unwrap_or_default();
        rows.resize_with(samples.len(), Row::default);
        let slots = Slots::new(self.pool.take(), rows, self.loader.image_bytes());
        let filling = Arc::new(Filling {
            number: state.begun,
            plan,
            samples,
            slots,
        });
        state.begun += 1;
        state.current = Some(Arc::clone(&filling));
        Some(filling)
    }

    /// Puts a finished batch where the reader finds it, and keeps the rows for another.
    pub fn finished(&self, number: u64, batch: Batch, rows: Vec<Row>) {
        let mut state = lock(&self.state);
        state.finished.insert(number, batch);
        state.spare_rows.push(rows);
        let is_next = number == state.taken;
        drop(state);
        if is_next {
            self.ready.notify_all();
        }
    }

    fn next_within(&self, timeout: Duration) -> Result<Next, Arc<Error>> {
        let begun = Instant::now();
        let mut state = lock(&self.state);
        loop {
            if let Some(error) = &state.error {
                return Err(Arc::clone(error));
            }
            let number = state.taken;
            if let Some(batch) = state.finished.remove(&number) {
                self.judge_epoch(&mut state, Some(batch.cursor.epoch))?;
                state.taken += 1;
                self.work.notify_all();
                // In an evaluation every sample of a batch may have been bad.
                if batch.samples.is_empty() {
                    continue;
                }
                drop(state);
                self.counters.delivered();
                self.counters.passed(Stage::Wait, begun);
                return Ok(Next::Batch(Box::new(batch)));
            }
            if state.planned_all && state.taken == state.begun {
                self.judge_epoch(&mut state, None)?;
                return Ok(Next::End);
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                drop(state);
                return Ok(Next::Waiting);
            }
            state = self
                .ready
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Judges the share of bad samples when the reader passes the end of an epoch.
    fn judge_epoch(&self, state: &mut State, epoch: Option<u64>) -> Result<(), Arc<Error>> {
        if epoch == Some(state.epoch_taken) {
            return Ok(());
        }
        state.epoch_taken = epoch.unwrap_or(state.epoch_taken);
        self.counters
            .judge_epoch(self.loader.config.max_bad_fraction)
            .map_err(|error| {
                self.stopping.store(true, Ordering::Relaxed);
                self.work.notify_all();
                Arc::clone(state.error.insert(Arc::new(error)))
            })
    }
}

/// Locks; a panic elsewhere is reported by itself, and none happens while a lock is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
