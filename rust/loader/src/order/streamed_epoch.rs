//! An epoch over shards with unknown lengths, which a rank learns as it reads its own shards in order.
//!
//! The shuffled list of shards is divided as if all were equally long. A rank's share may begin and end within a shard, and every
//! sample belongs to exactly one rank. The length of the epoch must be configured. A rank whose shards hold fewer samples than
//! its share reads them again.

use std::ops::Range;
use std::sync::Arc;

use super::epoch_order::{self, KEPT_WINDOWS, Window, WindowSlice};
use super::shard_lengths::{Blocked, NeededShard, ShardLengths};
use super::shard_sampler::ShardSampler;
use super::steps::OrderSettings;
use crate::config::LastBatch;
use crate::error::ConfigError;
use crate::rng::{SampleRng, stream};
use crate::shards::SampleId;

/// After this many empty draws in a row, per shard in the list, every shard is assumed to be empty.
const EMPTY_DRAWS: usize = 64;

#[derive(Debug)]
enum Pieces {
    /// From a fraction of the first shard to a fraction of the last.
    Part {
        shards: Vec<u32>,
        first: u64,
        last: u64,
        whole: u64,
        /// Whether the part is read only once.
        once: bool,
    },
    Drawn(Arc<ShardSampler>),
}

#[derive(Debug)]
pub struct StreamedEpoch {
    settings: OrderSettings,
    epoch: u64,
    pieces: Pieces,
    /// For each piece of known length: the position after it, and the samples of the shard that it covers.
    known: Vec<(u64, Range<u32>)>,
    /// Empty pieces at the end of `known`, and how many are allowed.
    empty: usize,
    max_empty: usize,
    /// In samples. No window crosses its end.
    share: u64,
    /// Samples to read; `None` for whatever the rank's shards hold.
    limit: Option<u64>,
    /// Where the shards turned out to end.
    end: Option<u64>,
    windows: Vec<Window>,
}

impl StreamedEpoch {
    /// All ranks have read the samples before `position`.
    pub fn new(settings: &OrderSettings, num_shards: usize, epoch: u64, position: u64) -> Self {
        let (rule, ranks) = (settings.last_batch, settings.world_size);
        let (share, limit) = if rule == LastBatch::Keep {
            (u64::MAX, None)
        } else {
            let partition = settings.partition(settings.num_samples.unwrap_or(0));
            let share = partition.room(rule, settings.rank);
            let left = share.saturating_sub(position);
            (share, Some(position + settings.steps(left, position.saturating_mul(ranks)).1))
        };
        let pieces = match &settings.sampler {
            Some(sampler) => Pieces::Drawn(Arc::clone(sampler)),
            None => Pieces::part(settings, num_shards, epoch),
        };
        Self {
            max_empty: pieces.len().unwrap_or(num_shards * EMPTY_DRAWS),
            settings: settings.clone(),
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

    pub fn limit(&self) -> Option<u64> {
        self.limit.or(self.end)
    }

    pub fn num_known(&self) -> usize {
        self.known.len()
    }

    /// Whether the pieces of known length are all that is read.
    pub fn knows_all(&self) -> bool {
        let total = self.known.last().map_or(0, |(end, _)| *end);
        let needed = self.limit.map(|limit| limit.max(self.share));
        self.end.is_some() || needed.is_some_and(|needed| total >= needed)
    }

    /// `None` after the last.
    pub fn shard(&self, piece: usize) -> Option<u32> {
        match &self.pieces {
            Pieces::Part { shards, once, .. } if *once => shards.get(piece).copied(),
            Pieces::Part { shards, .. } => Some(shards[piece % shards.len()]),
            Pieces::Drawn(sampler) => {
                let place = stream::of_leg(stream::SHARDS, 1, self.settings.rank);
                let mut rng = SampleRng::new(self.settings.seed, self.epoch, piece as u64, place);
                Some(sampler.draw(&mut rng))
            }
        }
    }

    /// Position after the last window that holds samples of a piece; `None` until it is known.
    pub fn read_until(&self, piece: usize) -> Option<u64> {
        let (end, _) = *self.known.get(piece)?;
        let start = piece.checked_sub(1).map_or(0, |before| self.known[before].0);
        Some(if end > start { self.bounds(end - 1).0.end } else { end })
    }

    /// The samples from a position to the end of its window; `None` where the epoch is over.
    pub fn slice_at(
        &mut self,
        position: u64,
        lengths: &dyn ShardLengths,
    ) -> Result<Option<WindowSlice<'_>>, Blocked> {
        if self.limit().is_some_and(|limit| position >= limit) {
            return Ok(None);
        }
        let found = self.windows.iter().position(|window| window.positions.contains(&position));
        match found {
            Some(place) => self.windows[..=place].rotate_right(1),
            None => {
                let Some(window) = self.window(position, lengths)? else {
                    return Ok(None);
                };
                self.windows.truncate(KEPT_WINDOWS - 1);
                self.windows.insert(0, window);
            }
        }
        let window = &self.windows[0];
        Ok(Some(WindowSlice {
            samples: &window.samples[(position - window.positions.start) as usize..],
            shards: &window.shards,
        }))
    }

    fn bounds(&self, position: u64) -> (Range<u64>, u64) {
        let rng = SampleRng::new(self.settings.seed, self.epoch, 0, self.stream());
        let (mut positions, number) =
            epoch_order::bounds(self.settings.window as u64, rng, position);
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
        stream::of_leg(stream::ORDER, 0, self.settings.rank)
    }

    fn window(
        &mut self,
        position: u64,
        lengths: &dyn ShardLengths,
    ) -> Result<Option<Window>, Blocked> {
        let wanted = self.bounds(position).0.end;
        self.lookup(wanted, lengths)?;
        let (positions, number) = self.bounds(position);
        if !positions.contains(&position) {
            return Ok(None);
        }
        let mut samples = Vec::with_capacity((positions.end - positions.start) as usize);
        let mut piece = self.known.partition_point(|(end, _)| *end <= positions.start);
        let mut shards: Vec<NeededShard> = Vec::new();
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
                shards.push(NeededShard { shard, samples });
            }
            (at, piece) = (until, piece + 1);
        }
        if self.settings.window > 0 {
            SampleRng::new(self.settings.seed, self.epoch, number + 1, self.stream())
                .shuffle(&mut samples);
        }
        Ok(Some(Window { rank: self.settings.rank, positions, samples, shards: shards.into() }))
    }

    /// Otherwise the other ranks would wait for this one at their first step.
    fn no_samples_error(&self) -> ConfigError {
        let rule = "none of the shards that this rank reads holds a sample";
        ConfigError::new("shards", format!("rank {}'s part", self.settings.rank), rule)
    }

    /// Looks up the lengths of further pieces until they reach a position, or none are left.
    fn lookup(&mut self, position: u64, lengths: &dyn ShardLengths) -> Result<(), Blocked> {
        while self.end.is_none() {
            let total = self.known.last().map_or(0, |(end, _)| *end);
            if total >= position {
                break;
            }
            let piece = self.known.len();
            let Some(shard) = self.shard(piece).filter(|_| self.empty < self.max_empty) else {
                if total == 0 && self.limit.is_some() {
                    return Err(Blocked::Failed(self.no_samples_error().into()));
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
    fn part(settings: &OrderSettings, num_shards: usize, epoch: u64) -> Self {
        let mut order: Vec<u32> = (0..num_shards as u32).collect();
        if settings.window > 0 {
            SampleRng::new(settings.seed, epoch, 0, stream::SHARDS).shuffle(&mut order);
        }
        // In units of 1/world_size of a shard.
        let (count, whole) = (num_shards as u64, settings.world_size);
        let (start, end) = (count * settings.rank, count * (settings.rank + 1));
        let (first, last) = (start / whole, (end - 1) / whole);
        Self::Part {
            shards: order[first as usize..=last as usize].to_vec(),
            first: start % whole,
            last: end - last * whole,
            whole,
            once: settings.last_batch == LastBatch::Keep,
        }
    }

    /// Number of pieces before they repeat; `None` if they are drawn.
    fn len(&self) -> Option<usize> {
        match self {
            Self::Part { shards, .. } => Some(shards.len()),
            Self::Drawn(_) => None,
        }
    }

    fn places(&self, piece: usize, samples: u32) -> Range<u32> {
        let Self::Part { shards, first, last, whole, .. } = self else {
            return 0..samples;
        };
        let cut = |share: u64| (u64::from(samples) * share / whole) as u32;
        let place = piece % shards.len();
        let start = if place == 0 { cut(*first) } else { 0 };
        let end = if place + 1 == shards.len() { cut(*last) } else { samples };
        start..end
    }
}
