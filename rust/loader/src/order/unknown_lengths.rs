//! An epoch over shards of which some have unknown lengths: a rank reads its own shards one after the other, and finds out.
//!
//! The shards in their order are divided as if all were equally long: each rank has as much of the list of *shards* as any
//! other, where it begins and ends perhaps with a part of one, and every sample still belongs to exactly one rank. How long an
//! epoch is must be said; a rank whose shards hold fewer samples than its share goes round them again.

use std::ops::Range;
use std::sync::Arc;

use super::epoch::{self, Stretch};
use super::lengths::{Blocked, Lengths, Needed};
use super::rules::Rules;
use super::shard_sampler::Draws;
use crate::config::LastBatch;
use crate::error::ConfigError;
use crate::rng::{SampleRng, stream};
use crate::shards::SampleId;

/// Empty shards one after the other, for each shard of the list, after which all that may be drawn are taken to be empty.
const EMPTY_DRAWS: usize = 64;
/// Windows that are kept: a batch may end in the next.
const KEPT: usize = 2;

/// The shards of one rank, in the order in which it reads them.
#[derive(Debug)]
enum Pieces {
    /// Some shards, the first from a share of its samples on, the last up to a share of them.
    Part {
        shards: Vec<u32>,
        first: u64,
        last: u64,
        whole: u64,
        /// Whether they are read once.
        once: bool,
    },
    /// One drawn after the other.
    Drawn(Arc<Draws>),
}

#[derive(Debug)]
struct Window {
    positions: Range<u64>,
    samples: Vec<SampleId>,
    shards: Arc<[Needed]>,
}

/// What one rank reads in an epoch, as far as the lengths are known.
#[derive(Debug)]
pub struct Streamed {
    rules: Rules,
    epoch: u64,
    pieces: Pieces,
    /// Positions where the pieces end whose lengths are known, and the places of their samples in the shards.
    known: Vec<(u64, Range<u32>)>,
    /// Empty pieces at the end of those, and how many there may be.
    empty: usize,
    max_empty: usize,
    /// Samples of this rank's share of the epoch: no window lies on both sides of its end.
    share: u64,
    /// Samples that it reads; nothing where that is what its shards hold.
    limit: Option<u64>,
    /// Where its shards turned out to end.
    end: Option<u64>,
    windows: Vec<Window>,
}

impl Streamed {
    /// The beginning of an epoch of which `begun` samples of this rank were read in earlier legs.
    pub fn new(rules: &Rules, num_shards: usize, epoch: u64, begun: u64) -> Self {
        let (ranks, size) = (rules.world_size, rules.batch_size);
        let total = rules.num_samples.unwrap_or(0);
        let round = |share: u64| begun + share.saturating_sub(begun).div_ceil(size) * size;
        let (share, limit) = match rules.last_batch {
            LastBatch::Drop => {
                let share = total / ranks;
                let full = share.saturating_sub(begun) / size * size;
                (share, Some(begun + full))
            }
            LastBatch::Pad => (total.div_ceil(ranks), Some(round(total.div_ceil(ranks)))),
            LastBatch::Keep => (u64::MAX, None),
        };
        let pieces = match &rules.draws {
            Some(draws) => Pieces::Drawn(Arc::clone(draws)),
            None => Pieces::part(rules, num_shards, epoch),
        };
        Self {
            max_empty: pieces.len().unwrap_or(num_shards * EMPTY_DRAWS),
            rules: rules.clone(),
            epoch,
            pieces,
            known: Vec::new(),
            empty: 0,
            share,
            limit,
            end: None,
            windows: Vec::new(),
        }
    }

    /// Samples that the rank reads, where that is known.
    pub fn limit(&self) -> Option<u64> {
        self.limit.or(self.end)
    }

    /// Pieces whose lengths are known.
    pub fn num_known(&self) -> usize {
        self.known.len()
    }

    /// Whether the pieces whose lengths are known are all that is read.
    pub fn knows_all(&self) -> bool {
        let total = self.known.last().map_or(0, |(end, _)| *end);
        let needed = self.limit.map(|limit| limit.max(self.share));
        self.end.is_some() || needed.is_some_and(|needed| total >= needed)
    }

    /// The shard of a piece; nothing behind the last.
    pub fn shard(&self, piece: usize) -> Option<u32> {
        match &self.pieces {
            Pieces::Part { shards, once, .. } if *once => shards.get(piece).copied(),
            Pieces::Part { shards, .. } => Some(shards[piece % shards.len()]),
            Pieces::Drawn(draws) => {
                let place = stream::of_leg(stream::SHARDS, 1, self.rules.rank);
                let mut rng = SampleRng::new(self.rules.seed, self.epoch, piece as u64, place);
                Some(draws.draw(&mut rng))
            }
        }
    }

    /// Position behind the last window that a piece has samples in; nothing as long as that is not known.
    pub fn read_until(&self, piece: usize) -> Option<u64> {
        let (end, _) = *self.known.get(piece)?;
        let start = piece
            .checked_sub(1)
            .map_or(0, |before| self.known[before].0);
        Some(if end > start {
            self.bounds(end - 1).0.end
        } else {
            end
        })
    }

    /// The samples from a position to the end of its window; nothing where the epoch is over.
    pub fn stretch(
        &mut self,
        position: u64,
        lengths: &dyn Lengths,
    ) -> Result<Option<Stretch<'_>>, Blocked> {
        if self.limit().is_some_and(|limit| position >= limit) {
            return Ok(None);
        }
        let found = self
            .windows
            .iter()
            .position(|window| window.positions.contains(&position));
        match found {
            Some(place) => self.windows[..=place].rotate_right(1),
            None => {
                let Some(window) = self.window(position, lengths)? else {
                    return Ok(None);
                };
                self.windows.truncate(KEPT - 1);
                self.windows.insert(0, window);
            }
        }
        let window = &self.windows[0];
        Ok(Some(Stretch {
            samples: &window.samples[(position - window.positions.start) as usize..],
            shards: &window.shards,
        }))
    }

    fn bounds(&self, position: u64) -> (Range<u64>, u64) {
        let rng = SampleRng::new(self.rules.seed, self.epoch, 0, self.stream());
        let (mut positions, number) = epoch::bounds(self.rules.window as u64, rng, position);
        if position < self.share {
            positions.end = positions.end.min(self.share);
        } else {
            positions.start = positions.start.max(self.share);
        }
        if let Some(limit) = self.limit.filter(|&limit| limit > position) {
            positions.end = positions.end.min(limit.max(self.share));
        }
        if let Some(end) = self.end {
            positions.end = positions.end.min(end);
        }
        (positions, number)
    }

    fn stream(&self) -> u64 {
        stream::of_leg(stream::ORDER, 0, self.rules.rank)
    }

    fn window(&mut self, position: u64, lengths: &dyn Lengths) -> Result<Option<Window>, Blocked> {
        let wanted = self.bounds(position).0.end;
        self.learn(wanted, lengths)?;
        let (positions, number) = self.bounds(position);
        if !positions.contains(&position) {
            return Ok(None);
        }
        let mut samples = Vec::with_capacity((positions.end - positions.start) as usize);
        let mut piece = self
            .known
            .partition_point(|(end, _)| *end <= positions.start);
        let mut shards: Vec<Needed> = Vec::new();
        let mut at = positions.start;
        while at < positions.end {
            let (end, places) = &self.known[piece];
            let Some(shard) = self.shard(piece) else {
                break;
            };
            let until = (*end).min(positions.end);
            let first = places.end - (*end - at) as u32;
            let ids = first..first + (until - at) as u32;
            samples.extend(ids.map(|sample| SampleId { shard, sample }));
            if until > at
                && shards.iter().all(|needed| needed.shard != shard)
                && let Some(count) = lengths.samples(shard)
            {
                let samples = count.map_err(Blocked::Failed)?;
                shards.push(Needed { shard, samples });
            }
            (at, piece) = (until, piece + 1);
        }
        if self.rules.window > 0 {
            SampleRng::new(self.rules.seed, self.epoch, number + 1, self.stream())
                .shuffle(&mut samples);
        }
        Ok(Some(Window {
            positions,
            samples,
            shards: shards.into(),
        }))
    }

    /// The others would wait at their first step for a rank that has none.
    fn nothing(&self) -> ConfigError {
        let rule = "none of the shards that this rank reads holds a sample";
        ConfigError::new(
            "data.shards",
            format!("rank {}'s part", self.rules.rank),
            rule,
        )
    }

    /// Takes up the lengths of pieces until those known hold the samples before a position, or no more come.
    fn learn(&mut self, position: u64, lengths: &dyn Lengths) -> Result<(), Blocked> {
        while self.end.is_none() {
            let total = self.known.last().map_or(0, |(end, _)| *end);
            if total >= position {
                break;
            }
            let piece = self.known.len();
            let Some(shard) = self.shard(piece).filter(|_| self.empty < self.max_empty) else {
                if total == 0 && self.limit.is_some() {
                    return Err(Blocked::Failed(self.nothing().into()));
                }
                self.end = Some(total);
                break;
            };
            let samples = match lengths.samples(shard) {
                None => return Err(Blocked::Waiting(shard)),
                Some(Err(error)) => return Err(Blocked::Failed(error)),
                Some(Ok(samples)) => samples,
            };
            let places = self.pieces.places(piece, samples);
            let count = places.end - places.start;
            self.empty = if count == 0 { self.empty + 1 } else { 0 };
            self.known.push((total + u64::from(count), places));
        }
        Ok(())
    }
}

impl Pieces {
    /// A rank's part of all shards, in the order of the epoch.
    fn part(rules: &Rules, num_shards: usize, epoch: u64) -> Self {
        let mut order: Vec<u32> = (0..num_shards as u32).collect();
        if rules.window > 0 {
            SampleRng::new(rules.seed, epoch, 0, stream::SHARDS).shuffle(&mut order);
        }
        // In units of a shard's 1/world_size.
        let (count, whole) = (num_shards as u64, rules.world_size);
        let (start, end) = (count * rules.rank, count * (rules.rank + 1));
        let (first, last) = (start / whole, (end - 1) / whole);
        Self::Part {
            shards: order[first as usize..=last as usize].to_vec(),
            first: start % whole,
            last: end - last * whole,
            whole,
            once: rules.last_batch == LastBatch::Keep,
        }
    }

    /// Pieces of a round; nothing where there are no rounds.
    fn len(&self) -> Option<usize> {
        match self {
            Self::Part { shards, .. } => Some(shards.len()),
            Self::Drawn(_) => None,
        }
    }

    /// The samples of a piece in its shard, which holds so many.
    fn places(&self, piece: usize, samples: u32) -> Range<u32> {
        let Self::Part {
            shards,
            first,
            last,
            whole,
            ..
        } = self
        else {
            return 0..samples;
        };
        let cut = |share: u64| (u64::from(samples) * share / whole) as u32;
        let place = piece % shards.len();
        let start = if place == 0 { cut(*first) } else { 0 };
        let end = if place + 1 == shards.len() {
            cut(*last)
        } else {
            samples
        };
        start..end
    }
}
