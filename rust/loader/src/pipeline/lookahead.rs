//! Requests shards ahead of the batches that need them, and releases them afterwards.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::dataset::Dataset;
use crate::config::OnMissingShard;
use crate::error::Error;
use crate::order::{
    BatchPlan, Cursor, NeededShard, OrderSettings, ShardLengths, StreamedEpoch, UpcomingWindows,
};
use crate::remote::ShardProvider;
use crate::shards::UNKNOWN_LENGTH;

/// Shards requested beyond the next batch. The provider decides how many it downloads.
const SHARDS_AHEAD: usize = 32;
/// Samples beyond the next batch that are searched for them.
const SAMPLES_AHEAD: u64 = 1 << 20;
/// The same for shards of unknown length and for the next epoch: some turn out not to be needed.
const PIECES_AHEAD: usize = 8;

pub(super) struct KnownLengths {
    pub dataset: Arc<Dataset>,
    pub provider: Option<Arc<dyn ShardProvider>>,
}

impl ShardLengths for KnownLengths {
    fn counts(&self) -> &[u32] {
        self.dataset.index.counts()
    }

    fn lookup(&self, shard: u32) -> Option<Result<u32, Error>> {
        let skip = self.dataset.config.on_missing_shard == OnMissingShard::Skip;
        match self.provider.as_ref()?.length(shard)? {
            Ok(length) => {
                Some(Ok(u32::try_from(length).unwrap_or(UNKNOWN_LENGTH).min(UNKNOWN_LENGTH - 1)))
            }
            // Reading the shard says why it is missing, and whether the run can continue without it.
            Err(_) if skip => Some(Ok(1)),
            Err(error) => Some(Err(error)),
        }
    }
}

/// An epoch and a position in it.
type Place = (u64, u64);

pub(super) struct Lookahead {
    pub provider: Arc<dyn ShardProvider>,
    windows: UpcomingWindows,
    /// Samples up to the end of the last window, up to its start, and in all planned batches.
    seen: u64,
    last_window_start: u64,
    planned: u64,
    pieces: (u64, usize),
    /// Once the whole present epoch has been requested.
    next_epoch: Option<StreamedEpoch>,
    requests: VecDeque<Request>,
    /// Requests per shard.
    uses: HashMap<u32, usize>,
    unfinished_batches: VecDeque<(u64, Place)>,
    number: u64,
    /// All ready when the last batch began. They still are, because no request for them has ended.
    ready_shards: Option<Arc<[NeededShard]>>,
}

#[derive(Debug)]
struct Request {
    epoch: u64,
    until: Until,
    shards: Arc<[NeededShard]>,
}

/// A request ends once every batch that begins before a position of its epoch is finished.
#[derive(Debug)]
enum Until {
    Position(u64),
    /// The end of the windows that contain a piece.
    Piece(usize),
}

impl Lookahead {
    pub fn new(provider: Arc<dyn ShardProvider>, order: &OrderSettings, from: &Cursor) -> Self {
        Self {
            provider,
            windows: UpcomingWindows::new(order.clone(), from),
            seen: 0,
            last_window_start: 0,
            planned: 0,
            pieces: (from.epoch, 0),
            next_epoch: None,
            requests: VecDeque::new(),
            uses: HashMap::new(),
            unfinished_batches: VecDeque::new(),
            number: 0,
            ready_shards: None,
        }
    }

    pub fn all_ready(&mut self, shards: &Arc<[NeededShard]>) -> bool {
        if self.ready_shards.as_ref().is_some_and(|ready_shards| Arc::ptr_eq(ready_shards, shards))
        {
            return true;
        }
        // Each one, so that the provider knows that a batch waits for it.
        let absent = shards.iter().filter(|needed| !self.provider.is_ready(needed.shard));
        let there = absent.count() == 0;
        if there {
            self.ready_shards = Some(Arc::clone(shards));
        }
        there
    }

    pub fn begin(&mut self, plan: &BatchPlan) {
        self.unfinished_batches.push_back((self.number, (plan.epoch, plan.positions.start)));
        self.number += 1;
        self.planned += plan.positions.end - plan.positions.start;
    }

    fn add_request(&mut self, epoch: u64, until: Until, shards: Arc<[NeededShard]>) {
        let mut new = Vec::with_capacity(shards.len());
        for needed in &*shards {
            let uses = self.uses.entry(needed.shard).or_insert(0);
            *uses += 1;
            if *uses == 1 {
                new.push(needed.shard);
            }
        }
        self.requests.push_back(Request { epoch, until, shards });
        if !new.is_empty() {
            self.provider.request(&new);
        }
    }

    pub fn request_windows(&mut self, plan: &BatchPlan, known: &KnownLengths) {
        let end = self.planned + (plan.positions.end - plan.positions.start);
        let all = known.counts().len();
        let enough = (plan.shards.len() + SHARDS_AHEAD).min(all);
        while self.last_window_start < end
            || self.uses.len() < enough && self.seen < end + SAMPLES_AHEAD
        {
            let Some(window) = self.windows.next(known) else {
                return;
            };
            self.last_window_start = self.seen;
            self.seen += window.samples;
            self.add_request(window.epoch, Until::Position(window.until), window.shards);
        }
    }

    /// Requests the next pieces after those of known length, also of the next epoch.
    pub fn request_pieces(&mut self, epoch: u64, streamed: &StreamedEpoch, dataset: &Dataset) {
        if self.pieces.0 < epoch {
            self.pieces = (epoch, 0);
        }
        while self.pieces.0 == epoch && !streamed.knows_all() {
            if self.pieces.1 >= streamed.num_known() + PIECES_AHEAD {
                return;
            }
            let Some(shard) = streamed.shard(self.pieces.1) else {
                break;
            };
            self.request_piece(shard);
        }
        let (order, next) = (&dataset.order, epoch + 1);
        if order.num_epochs.is_some_and(|epochs| next >= epochs) {
            return;
        }
        if self.pieces.0 == epoch {
            self.pieces = (next, 0);
            let num_shards = dataset.index.counts().len();
            self.next_epoch = Some(StreamedEpoch::new(order, num_shards, next, 0));
        }
        while self.pieces.1 < PIECES_AHEAD
            && let Some(next_epoch) = &self.next_epoch
            && let Some(shard) = next_epoch.shard(self.pieces.1)
        {
            self.request_piece(shard);
        }
    }

    fn request_piece(&mut self, shard: u32) {
        let (epoch, piece) = self.pieces;
        let needed = NeededShard { shard, samples: 0 };
        self.add_request(epoch, Until::Piece(piece), Arc::new([needed]));
        self.pieces.1 += 1;
    }

    pub fn release_unneeded(
        &mut self,
        unfinished: u64,
        next: Place,
        streamed: Option<(u64, &StreamedEpoch)>,
    ) {
        while self.unfinished_batches.front().is_some_and(|&(number, _)| number < unfinished) {
            self.unfinished_batches.pop_front();
        }
        let oldest = self.unfinished_batches.front().map(|&(_, place)| place);
        let (epoch, position) = oldest.unwrap_or(next);
        while let Some(request) = self.requests.front() {
            let until = match (&request.until, streamed) {
                _ if request.epoch < epoch => Some(0),
                (Until::Position(until), _) => Some(*until),
                (Until::Piece(piece), Some((now, streamed))) if now == request.epoch => {
                    streamed.read_until(*piece)
                }
                _ => None,
            };
            if request.epoch > epoch || until.is_none_or(|until| until > position) {
                return;
            }
            let Some(request) = self.requests.pop_front() else {
                return;
            };
            for needed in &*request.shards {
                if let Some(uses) = self.uses.get_mut(&needed.shard) {
                    *uses -= 1;
                    if *uses == 0 {
                        self.uses.remove(&needed.shard);
                        self.provider.release(needed.shard);
                    }
                }
            }
        }
    }
}
