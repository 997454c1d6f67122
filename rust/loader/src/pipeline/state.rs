//! What the threads and the reader of a run share. Threads take the lock when a batch begins and ends, never for a sample.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::array_pool::{ArrayPool, Lease};
use super::bad_samples::BadSamples;
use super::batch::{Batch, Row};
use super::dataset::Dataset;
use super::planner::Planner;
use super::row_slots::RowSlots;
use super::stats::{Counters, LoaderStats, Stage};
use prolip_image::{Preparation, ValueTable};

use crate::archive::OpenFiles;
use crate::error::Error;
use crate::order::{BatchPlan, Cursor};
use crate::remote::ShardProvider;

#[derive(Debug)]
pub enum Next {
    Batch(Box<Batch>),
    End,
    Waiting,
}

#[derive(Debug)]
pub(crate) struct BatchInProgress {
    pub number: u64,
    pub plan: BatchPlan,
    pub slots: RowSlots,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Complete(Box<Batch>),
    /// In a batch that must be full, a sample and all its substitutes are bad.
    TooFewSamples,
    /// A shard is missing, or captions cannot be tokenized.
    Failed(Error),
}

#[derive(Debug)]
pub(crate) struct FinishedBatch {
    pub epoch: u64,
    pub bad_samples: BadSamples,
    pub outcome: Outcome,
}

struct State {
    /// `None` while a thread plans the next batch without the lock.
    planner: Option<Planner>,
    /// The next batch's shards were not ready, and nothing has changed since.
    waiting_for_shards: bool,
    /// The batch whose slots are handed out.
    current: Option<Arc<BatchInProgress>>,
    begun: u64,
    /// No further batch begins: all are planned, or one has failed.
    all_planned: bool,
    finished: BTreeMap<u64, FinishedBatch>,
    /// Batches that the reader has taken, including empty ones.
    taken: u64,
    epoch_taken: u64,
    /// Whether this run reads that epoch from its beginning.
    epoch_is_whole: bool,
    epoch_bad_samples: BadSamples,
    run_bad_samples: BadSamples,
    spare_rows: Vec<Vec<Row>>,
    ending: Option<Error>,
    /// Ended the run. The reader gets it after the finished batches.
    error: Option<Arc<Error>>,
}

impl State {
    /// After all of its batches. Of a resumed epoch only the rest is known, where good data may exceed the limit by chance.
    fn check_epoch(&self, limit: f64) -> Result<(), Error> {
        if self.epoch_is_whole {
            self.epoch_bad_samples.check_epoch(limit)
        } else {
            self.epoch_bad_samples.check_so_far(limit)
        }
    }
}

pub(crate) struct Shared {
    pub dataset: Arc<Dataset>,
    pub preparation: Preparation,
    pub counters: Counters,
    pool: Arc<ArrayPool>,
    pub provider: Option<Arc<dyn ShardProvider>>,
    pub files: Arc<OpenFiles>,
    /// Counts how often the provider's answers may have changed.
    changes: AtomicU64,
    stopping: AtomicBool,
    state: Mutex<State>,
    work: Condvar,
    /// The reader waits here for a batch.
    ready: Condvar,
}

impl Shared {
    pub fn new(
        dataset: Arc<Dataset>,
        provider: Option<Arc<dyn ShardProvider>>,
        from: &Cursor,
        table: Option<ValueTable>,
    ) -> Arc<Self> {
        let config = &dataset.config;
        let (form, fit) = (config.form(), config.fit);
        let preparation = Preparation { form, fit, turned: None, table, planes: false };
        let planner = Planner::new(Arc::clone(&dataset), provider.clone(), from);
        let state = State {
            planner: Some(planner),
            waiting_for_shards: false,
            current: None,
            begun: 0,
            all_planned: false,
            finished: BTreeMap::new(),
            taken: 0,
            epoch_taken: from.epoch,
            epoch_is_whole: from.legs.iter().all(|leg| leg.steps == 0),
            epoch_bad_samples: BadSamples::default(),
            run_bad_samples: BadSamples::default(),
            spare_rows: Vec::new(),
            ending: None,
            error: None,
        };
        let shared = Arc::new(Self {
            // One more for the batch that the reader works on.
            pool: ArrayPool::new(
                config.prefetch_batches + 1,
                dataset.max_patches() * preparation.cell_bytes(),
            ),
            dataset,
            preparation,
            provider,
            changes: AtomicU64::new(0),
            files: Arc::default(),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
            state: Mutex::new(state),
            work: Condvar::new(),
            ready: Condvar::new(),
        });
        if let Some(provider) = &shared.provider {
            let weak = Arc::downgrade(&shared);
            provider.on_change(Box::new(move || {
                if let Some(shared) = weak.upgrade() {
                    shared.provider_changed();
                }
            }));
        }
        shared
    }

    pub fn stats(&self) -> LoaderStats {
        let state = self.state.lock();
        let (ready, bad_samples) = (state.finished.len() as u64, state.run_bad_samples.clone());
        drop(state);
        self.counters.snapshot(ready, bad_samples)
    }

    /// The threads must have ended. Batches keep their memory.
    pub fn free(&self) {
        // Only now: until it ended, a thread may have been reading a downloaded shard.
        if let Some(provider) = &self.provider {
            provider.close();
        }
        let mut state = self.state.lock();
        state.finished.clear();
        state.spare_rows.clear();
        state.current = None;
        drop(state);
        self.pool.close();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub fn stop(&self, error: Error) {
        self.stop_locked(&mut self.state.lock(), error);
    }

    /// The reader sees the first reason. It is stored before any thread can see that it should stop.
    fn stop_locked(&self, state: &mut State, error: Error) -> Arc<Error> {
        let first = state.error.get_or_insert_with(|| Arc::new(error));
        self.stopping.store(true, Ordering::Relaxed);
        self.work.notify_all();
        self.ready.notify_all();
        Arc::clone(first)
    }

    /// Makes the threads check again whether the next batch's shards are ready.
    fn provider_changed(&self) {
        // Before the lock, so that a thread that is checking now checks again.
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.state.lock().waiting_for_shards = false;
        self.work.notify_all();
    }

    /// A batch with rows to fill. Planning one reads the first bytes of its images.
    pub fn wait_for_work(&self) -> Option<Arc<BatchInProgress>> {
        let mut state = self.state.lock();
        loop {
            if self.is_stopping() {
                return None;
            }
            if let Some(current) = state.current.as_ref().filter(|current| current.slots.has_work())
            {
                return Some(Arc::clone(current));
            }
            if state.all_planned {
                return None;
            }
            let free_places =
                state.begun - state.taken < self.dataset.config.prefetch_batches as u64;
            if free_places
                && !state.waiting_for_shards
                && let Some(planner) = state.planner.take()
            {
                state = self.plan_next(state, planner);
                continue;
            }
            let stage =
                if free_places && state.waiting_for_shards { Stage::Fetch } else { Stage::Idle };
            let begun_waiting = Instant::now();
            self.work.wait(&mut state);
            self.counters.passed(stage, begun_waiting);
        }
    }

    /// Starts the next batch if its shards are ready. Planning, allocating and asking the provider may take long, so the lock is
    /// released meanwhile.
    fn plan_next<'state>(
        &'state self,
        state: MutexGuard<'state, State>,
        mut planner: Planner,
    ) -> MutexGuard<'state, State> {
        let is_unfinished = |number: &u64| !state.finished.contains_key(number);
        let unfinished = (state.taken..state.begun).find(is_unfinished);
        let unfinished = unfinished.unwrap_or(state.begun);
        drop(state);
        let changes = self.changes.load(Ordering::Acquire);
        let next = planner.next(unfinished);
        let next = next.map_ok(|plan| plan.map(|plan| (plan, self.pool.take())));
        let mut state = self.state.lock();
        state.planner = Some(planner);
        match next {
            Poll::Ready(Ok(Some((plan, lease)))) => self.begin(&mut state, plan, lease),
            Poll::Ready(Ok(None)) => state.all_planned = true,
            Poll::Ready(Err(error)) => (state.all_planned, state.ending) = (true, Some(error)),
            Poll::Pending => {
                state.waiting_for_shards = changes == self.changes.load(Ordering::Acquire);
            }
        }
        // Either there is work for all threads, or all of them may end.
        self.work.notify_all();
        self.ready.notify_all();
        state
    }

    fn begin(&self, state: &mut State, plan: BatchPlan, lease: Lease) {
        let mut rows = state.spare_rows.pop().unwrap_or_default();
        rows.resize_with(plan.samples.len(), Row::default);
        let slots = RowSlots::new(lease, rows, plan.row_patches() * self.preparation.cell_bytes());
        state.current = Some(Arc::new(BatchInProgress { number: state.begun, plan, slots }));
        state.begun += 1;
    }

    pub fn finished(&self, number: u64, finished: FinishedBatch, rows: Vec<Row>) {
        let mut state = self.state.lock();
        // The reader stops at the first failed batch. All earlier ones have begun and will be finished.
        state.all_planned |= !matches!(finished.outcome, Outcome::Complete(_));
        state.finished.insert(number, finished);
        // Shards of this batch alone can be released, which may make room for the next batch's.
        let was_waiting = std::mem::take(&mut state.waiting_for_shards);
        state.spare_rows.push(rows);
        let (is_next, no_more) = (number == state.taken, state.all_planned);
        drop(state);
        if is_next {
            self.ready.notify_all();
        }
        if no_more || was_waiting {
            self.work.notify_all();
        }
    }

    pub fn next_within(&self, timeout: Duration) -> Result<Next, Arc<Error>> {
        let begun = Instant::now();
        let mut state = self.state.lock();
        loop {
            let number = state.taken;
            if let Some(finished) = state.finished.remove(&number) {
                let batch = self
                    .accept(&mut state, finished)
                    .map_err(|error| self.stop_locked(&mut state, error))?;
                // In evaluation all samples of a batch may have been bad.
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
            if state.all_planned && state.taken == state.begun {
                if let Some(error) = state.ending.take() {
                    return Err(self.stop_locked(&mut state, error));
                }
                state
                    .check_epoch(self.dataset.config.max_bad_fraction)
                    .map_err(|error| self.stop_locked(&mut state, error))?;
                return Ok(Next::End);
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                drop(state);
                self.counters.spend(Stage::Wait, begun.elapsed());
                return Ok(Next::Waiting);
            }
            self.ready.wait_for(&mut state, left);
        }
    }

    /// Checks also the previous epoch if this batch is the first of a new one.
    fn accept(&self, state: &mut State, finished: FinishedBatch) -> Result<Box<Batch>, Error> {
        let limit = self.dataset.config.max_bad_fraction;
        if finished.epoch != state.epoch_taken {
            state.check_epoch(limit)?;
            state.epoch_bad_samples = BadSamples::default();
            (state.epoch_taken, state.epoch_is_whole) = (finished.epoch, true);
        }
        state.epoch_bad_samples.add(&finished.bad_samples);
        state.run_bad_samples.add(&finished.bad_samples);
        let batch = match finished.outcome {
            Outcome::Complete(batch) => batch,
            Outcome::TooFewSamples => return Err(state.epoch_bad_samples.too_many(limit)),
            Outcome::Failed(error) => return Err(error),
        };
        state.epoch_bad_samples.check_so_far(limit)?;
        state.taken += 1;
        self.work.notify_all();
        Ok(batch)
    }
}
