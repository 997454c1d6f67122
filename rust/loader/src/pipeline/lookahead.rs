//! The shards that a run requests ahead of its batches, and releases behind them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::dataset::Loader;
use crate::config::OnMissingShard;
use crate::error::Error;
use crate::order::{BatchPlan, Cursor, Lengths, Needed, Rules, Scout, Streamed};
use crate::remote::ShardProvider;
use crate::shards::UNKNOWN_LENGTH;

/// Shards that are asked for beyond those of the batch that comes next; the provider decides how many of them it fetches.
const SHARDS_AHEAD: usize = 32;
/// Samples beyond the next batch in which those are looked for: with small windows of large shards they lie far ahead.
const SAMPLES_AHEAD: u64 = 1 << 20;
/// The same where lengths turn out on the way, and at the beginning of the next epoch. At the end of an epoch some are not
/// needed after all.
const PIECES_AHEAD: usize = 8;

/// What is known of the shards' lengths.
pub(super) struct Known<'schedule> {
    pub loader: &'schedule Loader,
    pub provider: Option<Arc<dyn ShardProvider>>,
}

impl Lengths for Known<'_> {
    fn counts(&self) -> &[u32] {
        self.loader.index.counts()
    }

    fn learn(&self, shard: u32) -> Option<Result<u32, Error>> {
        let skip = self.loader.config.on_missing_shard == OnMissingShard::Skip;
        match self.provider.as_ref()?.length(shard)? {
            Ok(length) => Some(Ok(u32::try_from(length)
                .unwrap_or(UNKNOWN_LENGTH)
                .min(UNKNOWN_LENGTH - 1))),
            // Reading it says why it is missing, and whether the run can go on without it.
            Err(_) if skip => Some(Ok(1)),
            Err(error) => Some(Err(error)),
        }
    }
}

/// An epoch, and what was read of it.
type Place = (u64, u64);

/// Shards that a run has asked for, and until when it needs them.
#[derive(Debug)]
pub(super) struct Claims {
    pub provider: Arc<dyn ShardProvider>,
    scout: Scout,
    /// Samples that the scout has seen, those before its last window, and those of the batches planned.
    scouted: u64,
    last_began: u64,
    planned: u64,
    /// With unknown lengths, the next piece to ask for, and its epoch.
    pieces: (u64, usize),
    /// The epoch after the present one, once everything in that was asked for.
    following: Option<Streamed>,
    /// In the order in which they were asked for.
    held: VecDeque<Claim>,
    /// How many of those name a shard.
    uses: HashMap<u32, usize>,
    /// The batches that may not be finished yet: number and place.
    begun: VecDeque<(u64, Place)>,
    /// Number of the next batch.
    number: u64,
    /// Shards that were all there when the last batch was begun. They still are: no claim of theirs is over.
    present: Option<Arc<[Needed]>>,
}

#[derive(Debug)]
struct Claim {
    epoch: u64,
    until: Until,
    shards: Arc<[Needed]>,
}

/// When a claim is over: once every batch that begins before a position of its epoch is finished.
#[derive(Debug)]
enum Until {
    Position(u64),
    /// The end of the windows that a piece lies in, wherever that turns out to be.
    Piece(usize),
}

impl Claims {
    pub fn new(provider: Arc<dyn ShardProvider>, rules: &Rules, from: &Cursor) -> Self {
        Self {
            provider,
            scout: Scout::new(rules.clone(), from),
            scouted: 0,
            last_began: 0,
            planned: 0,
            pieces: (from.epoch, 0),
            following: None,
            held: VecDeque::new(),
            uses: HashMap::new(),
            begun: VecDeque::new(),
            number: 0,
            present: None,
        }
    }

    pub fn are_there(&mut self, shards: &Arc<[Needed]>) -> bool {
        if self
            .present
            .as_ref()
            .is_some_and(|present| Arc::ptr_eq(present, shards))
        {
            return true;
        }
        // Each is asked for, so that the provider knows that a batch waits for it.
        let absent = shards
            .iter()
            .filter(|needed| !self.provider.is_ready(needed.shard));
        let there = absent.count() == 0;
        if there {
            self.present = Some(Arc::clone(shards));
        }
        there
    }

    pub fn begin(&mut self, plan: &BatchPlan) {
        self.begun
            .push_back((self.number, (plan.epoch, plan.positions.start)));
        self.number += 1;
        self.planned += plan.positions.end - plan.positions.start;
    }

    fn claim(&mut self, epoch: u64, until: Until, shards: Arc<[Needed]>) {
        let mut new = Vec::with_capacity(shards.len());
        for needed in &*shards {
            let uses = self.uses.entry(needed.shard).or_insert(0);
            *uses += 1;
            if *uses == 1 {
                new.push(needed.shard);
            }
        }
        self.held.push_back(Claim {
            epoch,
            until,
            shards,
        });
        if !new.is_empty() {
            self.provider.request(&new);
        }
    }

    /// Asks for the shards of a batch's windows, of the window behind them, and for some that come then.
    pub fn ask_for_windows(&mut self, plan: &BatchPlan, known: &Known<'_>) {
        let end = self.planned + (plan.positions.end - plan.positions.start);
        let all = known.counts().len();
        let enough = (plan.shards.len() + SHARDS_AHEAD).min(all);
        while self.last_began < end
            || self.uses.len() < enough && self.scouted < end + SAMPLES_AHEAD
        {
            let Some(visit) = self.scout.next(known) else {
                return;
            };
            self.last_began = self.scouted;
            self.scouted += visit.samples;
            self.claim(visit.epoch, Until::Position(visit.until), visit.shards);
        }
    }

    /// Asks for the pieces that come after those whose lengths are known, the first of the next epoch among them.
    pub fn ask_for_pieces(&mut self, epoch: u64, streamed: &Streamed, loader: &Loader) {
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
            self.claim_piece(shard);
        }
        let (rules, next) = (&loader.rules, epoch + 1);
        if rules.num_epochs.is_some_and(|epochs| next >= epochs) {
            return;
        }
        if self.pieces.0 == epoch {
            self.pieces = (next, 0);
            let num_shards = loader.index.counts().len();
            self.following = Some(Streamed::new(rules, num_shards, next, 0));
        }
        while self.pieces.1 < PIECES_AHEAD
            && let Some(following) = &self.following
            && let Some(shard) = following.shard(self.pieces.1)
        {
            self.claim_piece(shard);
        }
    }

    fn claim_piece(&mut self, shard: u32) {
        let (epoch, piece) = self.pieces;
        let needed = Needed { shard, samples: 0 };
        self.claim(epoch, Until::Piece(piece), Arc::new([needed]));
        self.pieces.1 += 1;
    }

    /// Gives back what no batch needs that is not finished.
    pub fn give_back(&mut self, unfinished: u64, next: Place, streamed: Option<(u64, &Streamed)>) {
        while self
            .begun
            .front()
            .is_some_and(|&(number, _)| number < unfinished)
        {
            self.begun.pop_front();
        }
        let begun = self.begun.front().map(|&(_, place)| place);
        let (epoch, position) = begun.unwrap_or(next);
        while let Some(claim) = self.held.front() {
            let until = match (&claim.until, streamed) {
                _ if claim.epoch < epoch => Some(0),
                (Until::Position(until), _) => Some(*until),
                (Until::Piece(piece), Some((now, streamed))) if now == claim.epoch => {
                    streamed.read_until(*piece)
                }
                _ => None,
            };
            if claim.epoch > epoch || until.is_none_or(|until| until > position) {
                return;
            }
            let Some(claim) = self.held.pop_front() else {
                return;
            };
            for needed in &*claim.shards {
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
