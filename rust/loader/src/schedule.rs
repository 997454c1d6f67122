//! What is read next: the batches in order, and the shards that are asked for ahead of them and given back behind them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::config::OnMissingShard;
use crate::error::Error;
use crate::loader::Loader;
use crate::order::{BatchPlan, Cursor, Lengths, Needed, Route, Scout, Step, Streamed, UNKNOWN};
use crate::supply::Supply;

/// Shards that are asked for beyond those of the batch that comes next; the supply decides how many of them it fetches.
const SHARDS_AHEAD: usize = 32;
/// Samples beyond the next batch in which those are looked for: with small windows of large shards they lie far ahead.
const SAMPLES_AHEAD: u64 = 1 << 20;
/// The same where lengths turn out on the way, and at the beginning of the next epoch. At the end of an epoch some are not
/// needed after all.
const PIECES_AHEAD: usize = 8;

/// What can be begun now.
#[derive(Debug)]
pub(crate) enum Upcoming {
    Batch(BatchPlan),
    /// Shards of the next batch are on their way.
    Waiting,
    /// All batches were given.
    End,
    /// The next one cannot be made.
    Failed(Error),
}

/// The batches of a run in order. One thread has it at a time.
#[derive(Debug)]
pub(crate) struct Schedule {
    loader: Arc<Loader>,
    route: Route,
    /// A batch whose shards were not all there when it was last asked for.
    waiting: Option<BatchPlan>,
    /// Absent where every shard is always there.
    claims: Option<Claims>,
}

impl Schedule {
    pub fn new(loader: Arc<Loader>, supply: Arc<dyn Supply>, from: &Cursor) -> Self {
        let rules = loader.rules.clone();
        let claims = (!supply.is_local()).then(|| Claims {
            supply,
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
        });
        Self {
            route: Route::new(rules, from),
            loader,
            waiting: None,
            claims,
        }
    }

    /// The next batch, once its shards are there; until then every call asks for them again. All batches before number
    /// `unfinished` are finished.
    pub fn next(&mut self, unfinished: u64) -> Upcoming {
        let known = Known {
            loader: &self.loader,
            supply: self
                .claims
                .as_ref()
                .map(|claims| Arc::clone(&claims.supply)),
        };
        let mut missing = None;
        if self.waiting.is_none() {
            match self.route.next(&known) {
                Ok(Step::Batch(plan)) => self.waiting = Some(plan),
                Ok(Step::Waiting(shard)) => missing = Some(shard),
                Ok(Step::End) => return Upcoming::End,
                Err(error) => return Upcoming::Failed(error),
            }
        }
        if let Some(claims) = &mut self.claims {
            let streamed = self.route.streamed();
            let planned = self.waiting.as_ref();
            let next = planned.map(|plan| (plan.epoch, plan.positions.start));
            claims.give_back(unfinished, next.unwrap_or(self.route.place()), streamed);
            match (streamed, &self.waiting) {
                (Some((epoch, streamed)), _) => {
                    claims.ask_for_pieces(epoch, streamed, &self.loader)
                }
                (None, Some(plan)) => claims.ask_for_windows(plan, &known),
                (None, None) => {}
            }
            if let Some(shard) = missing {
                // Asking tells the supply that a batch waits for it.
                claims.supply.is_ready(shard);
            }
            if let Some(plan) = &self.waiting {
                if !claims.are_there(&plan.shards) {
                    return Upcoming::Waiting;
                }
                claims.begin(plan);
            }
        }
        self.waiting
            .take()
            .map_or(Upcoming::Waiting, Upcoming::Batch)
    }
}

/// What is known of the shards' lengths.
struct Known<'schedule> {
    loader: &'schedule Loader,
    supply: Option<Arc<dyn Supply>>,
}

impl Lengths for Known<'_> {
    fn counts(&self) -> &[u32] {
        self.loader.index.counts()
    }

    fn learn(&self, shard: u32) -> Option<Result<u32, Error>> {
        let skip = self.loader.config.on_missing_shard == OnMissingShard::Skip;
        match self.supply.as_ref()?.length(shard)? {
            Ok(length) => Some(Ok(u32::try_from(length)
                .unwrap_or(UNKNOWN)
                .min(UNKNOWN - 1))),
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
struct Claims {
    supply: Arc<dyn Supply>,
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
    fn are_there(&mut self, shards: &Arc<[Needed]>) -> bool {
        if self
            .present
            .as_ref()
            .is_some_and(|present| Arc::ptr_eq(present, shards))
        {
            return true;
        }
        // Each is asked for, so that the supply knows that a batch waits for it.
        let absent = shards
            .iter()
            .filter(|needed| !self.supply.is_ready(needed.shard));
        let there = absent.count() == 0;
        if there {
            self.present = Some(Arc::clone(shards));
        }
        there
    }

    fn begin(&mut self, plan: &BatchPlan) {
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
            self.supply.announce(&new);
        }
    }

    /// Asks for the shards of a batch's windows, of the window behind them, and for some that come then.
    fn ask_for_windows(&mut self, plan: &BatchPlan, known: &Known<'_>) {
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
    fn ask_for_pieces(&mut self, epoch: u64, streamed: &Streamed, loader: &Loader) {
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
    fn give_back(&mut self, unfinished: u64, next: Place, streamed: Option<(u64, &Streamed)>) {
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
                        self.supply.release(needed.shard);
                    }
                }
            }
        }
    }
}
