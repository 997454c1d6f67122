//! The stages, joined: threads fill batches slot by slot, the reader takes them in order.
//!
//! Threads meet at a lock when a batch is begun and when it is finished, never for a sample.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Lease, Pool, Row, Slots};
use crate::error::Error;
use crate::loader::Loader;
use crate::order::{BatchPlan, Cursor, EpochOrder, Planner};
use crate::stats::{Counters, LoaderStats, Stage};
use crate::tally::Tally;
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

/// What became of a batch. All of it is a function of the configuration and the data.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is as it should be, or smaller where bad samples are left out.
    Made(Box<Batch>),
    /// A place is empty that must not be: its sample and all substitutes are bad.
    Unfilled,
    /// Its texts cannot become ids.
    Failed(Error),
}

/// A batch of which no thread has anything left to do.
#[derive(Debug)]
pub(crate) struct Finished {
    pub epoch: u64,
    /// Samples that were tried for it.
    pub tally: Tally,
    pub outcome: Outcome,
}

#[derive(Debug)]
struct State {
    planner: Planner,
    /// The order of the epoch that is being planned.
    order: Option<(u64, EpochOrder)>,
    /// The batch that still has, or last had, slots to give out.
    current: Option<Arc<Filling>>,
    begun: u64,
    /// Whether a thread is about to begin a batch, without the lock.
    beginning: bool,
    /// No batch is begun any more: they are all planned, or one has failed.
    planned_all: bool,
    finished: BTreeMap<u64, Finished>,
    /// Batches that the reader has passed, empty ones included.
    taken: u64,
    epoch_taken: u64,
    /// Samples of the batches that the reader has passed: of this epoch, and of the run.
    epoch_tally: Tally,
    run_tally: Tally,
    spare_rows: Vec<Vec<Row>>,
    /// What ended the run. The reader sees it behind the finished batches.
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
            beginning: false,
            planned_all: false,
            finished: BTreeMap::new(),
            taken: 0,
            epoch_taken: from.epoch,
            epoch_tally: Tally::default(),
            run_tally: Tally::default(),
            spare_rows: Vec::new(),
            error: None,
        };
        let num_threads = config.num_threads;
        let shared = Arc::new(Shared {
            // One more than are prefetched: the batch that the reader works on.
            pool: Pool::new(
                config.prefetch_batches + 1,
                config.batch_size * loader.image_bytes(),
            ),
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
    /// What stopped the run, behind the batches before it; the same on every further call.
    pub fn next_within(&self, timeout: Duration) -> Result<Next, Arc<Error>> {
        self.shared.next_within(timeout)
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> LoaderStats {
        let state = lock(&self.shared.state);
        let (ready, tally) = (state.finished.len() as u64, state.run_tally.clone());
        drop(state);
        self.shared.counters.snapshot(ready, tally)
    }

    /// Ends the threads, waits for them and frees the memory that no batch holds. Whoever waits for a batch gets
    /// [`Error::Closed`]. May be called again; a call during another returns before the threads have ended.
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
        drop(state);
        self.shared.pool.close();
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
        self.halt(&mut lock(&self.state), error);
    }

    /// Ends the run. The reason is there before any thread can see that it should stop.
    fn halt(&self, state: &mut State, error: Error) -> Arc<Error> {
        let first = state.error.get_or_insert_with(|| Arc::new(error));
        self.stopping.store(true, Ordering::Relaxed);
        self.work.notify_all();
        self.ready.notify_all();
        Arc::clone(first)
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
            if state.planned_all {
                break None;
            }
            let free_places =
                state.begun - state.taken < self.loader.config.prefetch_batches as u64;
            if free_places && !state.beginning {
                state.beginning = true;
                drop(state);
                // Fresh memory takes long, and others give back slots and take batches meanwhile.
                let lease = self.pool.take();
                state = lock(&self.state);
                state.beginning = false;
                self.begin(&mut state, lease);
                // Either there is a batch for all, or all may go home.
                self.work.notify_all();
                self.ready.notify_all();
                continue;
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

    fn begin(&self, state: &mut State, lease: Lease) {
        let Some(plan) = state.planner.next() else {
            state.planned_all = true;
            return;
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
        state.current = Some(Arc::new(Filling {
            number: state.begun,
            plan,
            samples,
            slots: Slots::new(lease, rows, self.loader.image_bytes()),
        }));
        state.begun += 1;
    }

    /// Puts a finished batch where the reader finds it, and keeps the rows for another.
    pub fn finished(&self, number: u64, finished: Finished, rows: Vec<Row>) {
        let mut state = lock(&self.state);
        // The reader ends at the first batch that failed. All before it are begun already, and are finished.
        state.planned_all |= !matches!(finished.outcome, Outcome::Made(_));
        state.finished.insert(number, finished);
        state.spare_rows.push(rows);
        let (is_next, no_more) = (number == state.taken, state.planned_all);
        drop(state);
        if is_next {
            self.ready.notify_all();
        }
        if no_more {
            self.work.notify_all();
        }
    }

    fn next_within(&self, timeout: Duration) -> Result<Next, Arc<Error>> {
        let begun = Instant::now();
        let mut state = lock(&self.state);
        loop {
            let number = state.taken;
            if let Some(finished) = state.finished.remove(&number) {
                let batch = self
                    .pass(&mut state, finished)
                    .map_err(|error| self.halt(&mut state, error))?;
                // In an evaluation every sample of a batch may have been bad.
                if batch.samples.is_empty() {
                    continue;
                }
                drop(state);
                self.counters.delivered();
                self.counters.passed(Stage::Wait, begun);
                return Ok(Next::Batch(batch));
            }
            if let Some(error) = &state.error {
                return Err(Arc::clone(error));
            }
            if state.planned_all && state.taken == state.begun {
                state
                    .epoch_tally
                    .check_whole(self.loader.config.max_bad_fraction)
                    .map_err(|error| self.halt(&mut state, error))?;
                return Ok(Next::End);
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                drop(state);
                self.counters.spend(Stage::Wait, begun.elapsed());
                return Ok(Next::Waiting);
            }
            state = self
                .ready
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Counts and judges a batch that the reader comes to, and the epoch before where it is the first of another.
    fn pass(&self, state: &mut State, finished: Finished) -> Result<Box<Batch>, Error> {
        let limit = self.loader.config.max_bad_fraction;
        if finished.epoch != state.epoch_taken {
            state.epoch_tally.check_whole(limit)?;
            state.epoch_tally = Tally::default();
            state.epoch_taken = finished.epoch;
        }
        state.epoch_tally.add(&finished.tally);
        state.run_tally.add(&finished.tally);
        let batch = match finished.outcome {
            Outcome::Made(batch) => batch,
            Outcome::Unfilled => return Err(state.epoch_tally.too_many(limit)),
            Outcome::Failed(error) => return Err(error),
        };
        state.epoch_tally.check_so_far(limit)?;
        state.taken += 1;
        self.work.notify_all();
        Ok(batch)
    }
}

/// Locks; a panic elsewhere is reported by itself, and none happens while a lock is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
