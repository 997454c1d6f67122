//! One epoch from a leg's beginning on: windows of samples in the order in which a rank reads them.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::cursor::Leg;
use super::lengths::Needed;
use super::partition::{Division, Leftover};
use super::shard_list::ShardList;
use crate::config::MAX_WINDOW;
use crate::rng::{SampleRng, stream};
use crate::shards::SampleId;

/// Samples that are looked up together where nothing is shuffled.
const BLOCK: u64 = 1024;
/// Windows of a leg that are kept: a stretch of the next leg's list ends in one, in which the following one begins.
const KEPT: usize = 2;

/// Samples that are shuffled together.
#[derive(Debug, Clone)]
pub struct Window {
    rank: u64,
    /// Its positions in the rank's part.
    pub positions: Range<u64>,
    /// Its samples, as they are read.
    pub samples: Vec<SampleId>,
    /// The shards that they lie in; known for windows of the present leg.
    pub shards: Arc<[Needed]>,
}

/// Samples that are read one after the other, and what they need.
#[derive(Debug, Clone, Copy)]
pub struct Stretch<'order> {
    /// The samples, at least one.
    pub samples: &'order [SampleId],
    /// All shards of their window.
    pub shards: &'order Arc<[Needed]>,
}

#[derive(Debug)]
struct Level {
    division: Division,
    /// What it left to the next leg; nothing for the present one.
    left: Option<Leftover>,
    /// The last ones that were used, the newest first.
    windows: Vec<Window>,
}

/// The order of an epoch for the ranks of its present leg.
#[derive(Debug)]
pub struct EpochOrder {
    seed: u64,
    epoch: u64,
    window: u64,
    list: ShardList,
    /// The legs in order, the present one last.
    levels: Vec<Level>,
}

impl EpochOrder {
    /// The order of what the `earlier` legs left of an epoch's list, for another one.
    ///
    /// A `window` of 0 keeps the order of the list; one above [`MAX_WINDOW`] is taken for that.
    #[must_use]
    pub fn new(
        list: ShardList,
        (seed, epoch): (u64, u64),
        window: usize,
        earlier: &[Leg],
        (world_size, batch_size): (u64, u64),
    ) -> Self {
        let mut total = list.total();
        let mut levels = Vec::with_capacity(earlier.len() + 1);
        for leg in earlier {
            let division = Division {
                total,
                world_size: leg.world_size,
                batch_size: leg.batch_size,
            };
            let left = division.after(leg.steps);
            total = left.total();
            levels.push(Level {
                division,
                left: Some(left),
                windows: Vec::new(),
            });
        }
        let division = Division {
            total,
            world_size,
            batch_size,
        };
        levels.push(Level {
            division,
            left: None,
            windows: Vec::new(),
        });
        Self {
            seed,
            epoch,
            window: window.min(MAX_WINDOW) as u64,
            list,
            levels,
        }
    }

    /// How the present leg divides what is left.
    #[must_use]
    pub fn division(&self) -> Division {
        self.levels[self.present()].division
    }

    fn present(&self) -> usize {
        self.levels.len() - 1
    }

    /// The window that holds a position of a rank's part, of shards with these numbers of samples.
    pub fn window(&mut self, rank: u64, position: u64, counts: &[u32]) -> &Window {
        self.load(self.present(), rank, position, counts)
    }

    /// Positions of the window in a rank's part that holds a position, and the window's number, from 0.
    fn bounds(&self, level: usize, rank: u64, position: u64) -> (Range<u64>, u64) {
        let length = self.levels[level].division.length(rank);
        let (positions, number) = bounds(self.window, self.rng(level, rank, 0), position);
        (positions.start..positions.end.min(length), number)
    }

    fn rng(&self, level: usize, rank: u64, number: u64) -> SampleRng {
        let place = stream::of_leg(stream::ORDER, level as u64, rank);
        SampleRng::new(self.seed, self.epoch, number, place)
    }

    /// The window of a leg that holds a position of a part, first among those that are kept.
    fn load(&mut self, level: usize, rank: u64, position: u64, counts: &[u32]) -> &Window {
        let holds = |window: &Window| window.rank == rank && window.positions.contains(&position);
        let kept = &mut self.levels[level].windows;
        if let Some(place) = kept.iter().position(holds) {
            kept[..=place].rotate_right(1);
        } else {
            let unused = if kept.len() == KEPT { kept.pop() } else { None };
            let mut samples = unused.map_or_else(Vec::new, |window| window.samples);
            samples.clear();
            let (positions, number) = self.bounds(level, rank, position);
            let start = self.levels[level].division.part(rank).start;
            let listed = start + positions.start..start + positions.end;
            self.read_list(level, listed, counts, &mut samples);
            let shards = if level == self.present() {
                distinct_shards(&samples, counts)
            } else {
                Arc::default()
            };
            if self.window > 0 {
                self.rng(level, rank, number + 1).shuffle(&mut samples);
            }
            let window = Window {
                rank,
                positions,
                samples,
                shards,
            };
            self.levels[level].windows.insert(0, window);
        }
        &self.levels[level].windows[0]
    }

    /// Appends the samples at these positions of the list that a leg divides.
    fn read_list(
        &mut self,
        level: usize,
        positions: Range<u64>,
        counts: &[u32],
        samples: &mut Vec<SampleId>,
    ) {
        let before = level.checked_sub(1);
        let left = before.and_then(|before| Some((before, self.levels[before].left?)));
        let Some((before, left)) = left else {
            return self.list.read(positions, samples);
        };
        let mut at = positions.start;
        while at < positions.end {
            let (rank, mut places) = left.locate(at);
            places.end = places.end.min(places.start + (positions.end - at));
            at += places.end - places.start;
            while places.start < places.end {
                let window = self.load(before, rank, places.start, counts);
                let (from, end) = (window.positions.start, window.positions.end);
                let end = end.min(places.end);
                let found = (places.start - from) as usize..(end - from) as usize;
                samples.extend_from_slice(&window.samples[found]);
                places.start = end;
            }
        }
    }
}

/// Positions of the window that holds a position, in a part of any length, and the window's number, from 0. The generator
/// draws the first cut.
pub fn bounds(window: u64, mut cut: SampleRng, position: u64) -> (Range<u64>, u64) {
    let (size, offset) = if window == 0 {
        (BLOCK, 0)
    } else {
        // The cuts lie elsewhere in every epoch and part, so that no two of them shuffle the same samples together.
        let choices = u32::try_from(window).unwrap_or(u32::MAX);
        (window, u64::from(cut.below(choices)))
    };
    // Window 0 is what lies before the first cut; it may be empty.
    let number = (position + size - offset) / size;
    let start = (number * size + offset).saturating_sub(size);
    (start..number * size + offset, number)
}

/// The shards of samples, in order of first use.
fn distinct_shards(samples: &[SampleId], counts: &[u32]) -> Arc<[Needed]> {
    let (mut known, mut shards, mut last) = (HashSet::new(), Vec::new(), None);
    for &SampleId { shard, .. } in samples {
        // Mostly the shard of the sample before.
        if last != Some(shard) && known.insert(shard) {
            let samples = counts[shard as usize];
            shards.push(Needed { shard, samples });
        }
        last = Some(shard);
    }
    shards.into()
}
