//! The order of one epoch: windows of samples, as a rank reads them from the beginning of a leg.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::cursor::Leg;
use super::partition::{Partition, Remainder};
use super::shard_lengths::NeededShard;
use super::shard_list::ShardList;
use super::steps::OrderSettings;
use crate::config::MAX_WINDOW;
use crate::rng::{SampleRng, stream};
use crate::shards::SampleId;

/// Samples that are listed together where nothing is shuffled.
const BLOCK: u64 = 1024;
/// Windows kept per leg: where a slice of the next leg's list ends in one window, the following slice begins in it.
pub const KEPT_WINDOWS: usize = 2;

#[derive(Debug, Clone)]
pub struct Window {
    pub rank: u64,
    pub positions: Range<u64>,
    pub samples: Vec<SampleId>,
    /// Those of its samples. Empty for windows of earlier legs.
    pub shards: Arc<[NeededShard]>,
}

#[derive(Debug, Clone, Copy)]
pub struct WindowSlice<'order> {
    pub samples: &'order [SampleId],
    pub shards: &'order Arc<[NeededShard]>,
}

#[derive(Debug)]
struct Level {
    partition: Partition,
    left: Option<Remainder>,
    windows: Vec<Window>,
}

#[derive(Debug)]
pub struct EpochOrder {
    seed: u64,
    epoch: u64,
    window: u64,
    list: ShardList,
    /// The present one last.
    levels: Vec<Level>,
}

impl EpochOrder {
    /// The order of the samples that the `earlier_legs` left of an epoch. A window above [`MAX_WINDOW`] is cut to it.
    pub fn new(settings: &OrderSettings, counts: &[u32], epoch: u64, earlier_legs: &[Leg]) -> Self {
        let list = settings.list(counts, epoch);
        let mut total = list.total();
        let mut levels = Vec::with_capacity(earlier_legs.len() + 1);
        for leg in earlier_legs {
            let partition =
                Partition { total, world_size: leg.world_size, batch_size: leg.batch_size };
            let left = partition.after(leg.steps);
            total = left.total();
            levels.push(Level { partition, left: Some(left), windows: Vec::new() });
        }
        levels.push(Level {
            partition: settings.partition(total),
            left: None,
            windows: Vec::new(),
        });
        Self {
            seed: settings.seed,
            epoch,
            window: settings.window.min(MAX_WINDOW) as u64,
            list,
            levels,
        }
    }

    /// How the present leg divides the remaining samples.
    pub fn partition(&self) -> Partition {
        self.levels[self.present()].partition
    }

    fn present(&self) -> usize {
        self.levels.len() - 1
    }

    /// The window of a rank's part that holds a position. `counts` are the lengths of the shards.
    pub fn window(&mut self, rank: u64, position: u64, counts: &[u32]) -> &Window {
        self.load(self.present(), rank, position, counts)
    }

    /// The positions of the window that holds a position of a rank's part, and the window's number from 0.
    fn bounds(&self, level: usize, rank: u64, position: u64) -> (Range<u64>, u64) {
        let length = self.levels[level].partition.length(rank);
        let (positions, number) = bounds(self.window, self.rng(level, rank, 0), position);
        (positions.start..positions.end.min(length), number)
    }

    fn rng(&self, level: usize, rank: u64, number: u64) -> SampleRng {
        let place = stream::of_leg(stream::ORDER, level as u64, rank);
        SampleRng::new(self.seed, self.epoch, number, place)
    }

    /// The window of a leg that holds a position. It moves to the front of those that are kept.
    fn load(&mut self, level: usize, rank: u64, position: u64, counts: &[u32]) -> &Window {
        let holds = |window: &Window| window.rank == rank && window.positions.contains(&position);
        let kept = &mut self.levels[level].windows;
        if let Some(place) = kept.iter().position(holds) {
            kept[..=place].rotate_right(1);
        } else {
            let is_full = kept.len() == KEPT_WINDOWS;
            let unused = kept.pop_if(|_| is_full);
            let mut samples = unused.map_or_else(Vec::new, |window| window.samples);
            samples.clear();
            let (positions, number) = self.bounds(level, rank, position);
            let start = self.levels[level].partition.part(rank).start;
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
            let window = Window { rank, positions, samples, shards };
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
            return self.list.append_to(samples, positions);
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

/// The positions of the window that holds a position, in a part of unlimited length, and the window's number from 0.
/// `cut` draws where the first window ends.
pub fn bounds(window: u64, mut cut: SampleRng, position: u64) -> (Range<u64>, u64) {
    let (size, offset) = if window == 0 {
        (BLOCK, 0)
    } else {
        // The cuts differ between epochs and parts, so that different samples are shuffled together each time.
        let choices = u32::try_from(window).unwrap_or(u32::MAX);
        (window, u64::from(cut.below(choices)))
    };
    // Window 0 is everything before the first cut; it may be empty.
    let number = (position + size - offset) / size;
    let start = (number * size + offset).saturating_sub(size);
    (start..number * size + offset, number)
}

fn distinct_shards(samples: &[SampleId], counts: &[u32]) -> Arc<[NeededShard]> {
    let (mut known, mut shards, mut last) = (HashSet::new(), Vec::new(), None);
    for &SampleId { shard, .. } in samples {
        // Usually the shard of the sample before.
        if last != Some(shard) && known.insert(shard) {
            let samples = counts[shard as usize];
            shards.push(NeededShard { shard, samples });
        }
        last = Some(shard);
    }
    shards.into()
}
