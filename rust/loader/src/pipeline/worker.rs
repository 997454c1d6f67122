//! A worker thread: fills rows, and completes a batch after filling its last row.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use super::array_pool::{BatchArrays, Lease};
use super::bad_samples::{BadSamples, max_substitutes};
use super::batch::{Batch, Row};
use super::batch_text::BatchText;
use super::dataset::Dataset;
use super::row_slots::RowSlot;
use super::state::{BatchInProgress, FinishedBatch, Outcome, Shared};
use super::stats::Stage;
use prolip_image::Preparer;

use crate::archive::Reader;
use crate::config::{LastBatch, LoaderConfig, MaskConfig, OnMissingShard, PatchDraw};
use crate::error::{Error, SampleError};
use crate::image::{draw, draw_native};
use crate::order::{BatchPlan, NeededShard};
use crate::rng::{SampleRng, stream};
use crate::shards::{Location, SampleId};
use crate::text::{captions, mask};

/// Works until the run is over, and turns a panic into the run's error.
pub(crate) fn run(shared: &Shared) {
    let mut worker = Worker::new(shared);
    let outcome = catch_unwind(AssertUnwindSafe(|| worker.work()));
    match outcome {
        Ok(()) => {}
        Err(thrown) => shared.stop(Error::panicked(worker.stage.name(), thrown.as_ref())),
    }
}

struct Worker<'shared> {
    shared: &'shared Shared,
    dataset: &'shared Dataset,
    config: &'shared LoaderConfig,
    /// The current stage, for the message of a panic.
    stage: Stage,
    reader: Reader,
    preparer: Preparer,
}

impl<'shared> Worker<'shared> {
    fn new(shared: &'shared Shared) -> Self {
        let config = &shared.dataset.config;
        Self {
            shared,
            dataset: &shared.dataset,
            config,
            stage: Stage::Fetch,
            reader: Reader::sharing(&shared.files, &config.keep_members),
            preparer: Preparer::new(config.max_pixels),
        }
    }

    fn work(&mut self) {
        while let Some(in_progress) = self.shared.wait_for_work() {
            while let Some(mut slot) = in_progress.slots.claim() {
                if !self.fill(&in_progress, &mut slot) {
                    // The slot is not returned, so nobody ever gets this batch.
                    return;
                }
                if let Some((lease, rows)) = slot.finish() {
                    self.finish(&in_progress, lease, rows);
                }
            }
        }
    }

    /// Fills a slot with its sample, or with a substitute if the batch must be full, else leaves the row empty. `false` if the
    /// run ends meanwhile; the slot must not be read then.
    fn fill(&mut self, in_progress: &BatchInProgress, slot: &mut RowSlot<'_>) -> bool {
        let plan = &in_progress.plan;
        let mut id = plan.samples[slot.index()];
        let mut rng = plan.rng(self.config.seed, slot.index(), stream::SUBSTITUTE);
        let mut bad_samples = BadSamples::default();
        let mut substitutes = match self.config.last_batch {
            LastBatch::Keep => 0,
            LastBatch::Drop | LastBatch::Pad => max_substitutes(self.config.max_bad_fraction),
        };
        let sample = loop {
            if self.shared.is_stopping() {
                return false;
            }
            bad_samples.tried += 1;
            match self.load(plan, slot.index(), id, slot.parts()) {
                Ok(()) => break Some(id),
                Err(error) => {
                    let shard = self.dataset.shard(id.shard);
                    let error = match self.fatal(shard, error) {
                        Ok(error) => {
                            slot.parts().1.fatal = Some(error);
                            break None;
                        }
                        Err(error) => error,
                    };
                    let name = match self.reader.key() {
                        // Without readable headers a sample has no key.
                        "" => format!("no. {}", self.reader.row()),
                        key => key.to_owned(),
                    };
                    bad_samples.record(shard, name, &error);
                }
            }
            if substitutes == 0 {
                break None;
            }
            substitutes -= 1;
            id = Self::substitute(&plan.shards, &mut rng);
        };
        let row = slot.parts().1;
        (row.sample, row.bad_samples) = (sample, bad_samples);
        true
    }

    /// Of the batch's own shards, which are ready; all samples equally likely.
    fn substitute(shards: &[NeededShard], rng: &mut SampleRng) -> SampleId {
        let total: u64 = shards.iter().map(|needed| u64::from(needed.samples)).sum();
        let mut place = ((rng.uniform() * total as f64) as u64).min(total.saturating_sub(1));
        let found = shards.iter().find(|needed| {
            let here = place < u64::from(needed.samples);
            place -= if here { 0 } else { u64::from(needed.samples) };
            here
        });
        SampleId { shard: found.map_or(0, |needed| needed.shard), sample: place as u32 }
    }

    /// The run's error if this sample ends the run; otherwise it counts as bad.
    fn fatal(&self, shard: &Location, error: SampleError) -> Result<Error, SampleError> {
        let (raise, shard) =
            (self.config.on_missing_shard == OnMissingShard::Raise, shard.to_string());
        let index = self.dataset.index.file();
        match error {
            SampleError::Fetch(error) if raise || error.here => Ok(error.into()),
            SampleError::Open(source) if raise => Ok(Error::Open { shard, source }),
            SampleError::Changed(what) if raise => {
                Ok(Error::Changed { shard, index: index.map(Path::to_owned), what })
            }
            SampleError::Index(source) => {
                Ok(Error::Index { index: index.unwrap_or(Path::new("")).to_owned(), source })
            }
            error => Err(error),
        }
    }

    fn load(
        &mut self,
        plan: &BatchPlan,
        index: usize,
        id: SampleId,
        (pixels, row): (&mut [u8], &mut Row),
    ) -> Result<(), SampleError> {
        let (config, dataset) = (self.config, self.dataset);
        let rng = |purpose| dataset.rng(plan, index, id, purpose);
        let counters = &self.shared.counters;
        let begun = Instant::now();
        self.stage = Stage::Read;
        let wanted = self.dataset.needed_members;
        let index = &self.dataset.index;
        let limit = config.max_member_bytes;
        let provider = self.shared.provider.as_deref();
        let members = self.reader.read(index, provider, id, wanted, limit, &mut row.raw_members)?;
        let begun = counters.passed(Stage::Read, begun);

        self.stage = Stage::Caption;
        if !config.captions.is_empty() {
            let texts = captions::Texts::new(members.txt, members.json, config.max_caption_bytes)?;
            let mask = config.mask.as_ref();
            let general_prob = mask.map_or(0.0, |mask| mask.general_prob);
            texts.draw(
                &config.captions,
                general_prob,
                &mut rng(stream::CAPTION),
                &mut row.captions,
            )?;
        }
        let begun = counters.passed(Stage::Caption, begun);

        if config.image_size != [0; 2] {
            self.stage = Stage::Decode;
            let draw = |width, height| {
                let augment = config.augment.as_ref()?;
                let draw = if config.native.is_some() { draw_native } else { draw };
                Some(draw(augment, width, height, &mut rng(stream::AUGMENT)))
            };
            let how = &self.shared.preparation;
            row.size = self.preparer.decode(members.image, how, draw)?.map(|side| side as i32);
            let begun = counters.passed(Stage::Decode, begun);

            self.stage = Stage::Augment;
            row.grid = self.preparer.write(how, pixels);
            counters.passed(Stage::Augment, begun);
        }
        row.row = self.reader.row();
        row.key.clear();
        row.key.push_str(self.reader.key());
        Ok(())
    }

    fn finish(&mut self, in_progress: &BatchInProgress, lease: Lease, mut rows: Vec<Row>) {
        let mut bad_samples = BadSamples::default();
        for row in &rows {
            bad_samples.add(&row.bad_samples);
        }
        let full = rows.iter().all(|row| row.sample.is_some());
        let outcome = if let Some(error) = rows.iter_mut().find_map(|row| row.fatal.take()) {
            Outcome::Failed(error)
        } else if full || self.config.last_batch == LastBatch::Keep {
            self.assemble(in_progress, lease, &mut rows)
                .map_or_else(Outcome::Failed, |batch| Outcome::Complete(Box::new(batch)))
        } else {
            Outcome::TooFewSamples
        };
        self.stage = Stage::Fetch;
        let finished = FinishedBatch { epoch: in_progress.plan.epoch, bad_samples, outcome };
        self.shared.finished(in_progress.number, finished, rows);
    }

    fn assemble(
        &mut self,
        in_progress: &BatchInProgress,
        mut lease: Lease,
        rows: &mut [Row],
    ) -> Result<Batch, Error> {
        let (dataset, plan) = (self.dataset, &in_progress.plan);
        let native = self.config.native.as_ref();
        let row_patches = plan.row_patches();
        let patch_bytes = self.shared.preparation.cell_bytes();
        let count = compact_rows(&mut lease.arrays, rows, row_patches, patch_bytes);
        let good = &rows[..count];
        let samples: Vec<SampleId> = good.iter().filter_map(|row| row.sample).collect();
        let mask = self.config.mask.as_ref();
        let masked_rows = mask.map_or(0, |mask| mask.masked_rows(count));
        let rng = |row: usize, purpose| dataset.rng(plan, row, samples[row], purpose);
        if let Some(tokenizer) = &dataset.tokenizer {
            let begun = Instant::now();
            self.stage = Stage::Tokenize;
            let texts = BatchText {
                tokenizer,
                rows: good,
                caption_slots: self.config.captions.len(),
                masked_rows,
            };
            let ids = &mut lease.arrays.token_ids;
            texts.encode(ids).map_err(|source| {
                let first = samples.first().copied().unwrap_or_default();
                Error::Tokenize {
                    shard: self.dataset.shard(first.shard).to_string(),
                    key: good.first().map_or_else(String::new, |row| row.key.clone()),
                    source,
                }
            })?;
            let begun = self.shared.counters.passed(Stage::Tokenize, begun);
            if let Some(mask) = mask {
                self.stage = Stage::Mask;
                let draws = |row| rng(row, stream::MASK);
                texts.mask(ids, mask, draws, &mut lease.arrays.masked_token_ids);
                self.shared.counters.passed(Stage::Mask, begun);
            }
        }
        if let Some(mask) = mask {
            let of_batch = plan.rng(self.config.seed, 0, stream::PATCHES);
            let of_row = |row| rng(row, stream::PATCHES);
            let num_patches = |row: &Row| {
                if native.is_some() { row.num_patches() } else { mask.num_patches }
            };
            let counts: Vec<usize> = good[..masked_rows].iter().map(num_patches).collect();
            keep_patches(mask, &counts, of_batch, of_row, &mut lease.arrays.kept_patches);
        }
        let (memory, rows) = (&mut lease.arrays, &mut rows[..count]);
        memory.rows = rows.iter().map(|row| row.row).collect();
        memory.sizes = rows.iter().map(|row| row.size).collect();
        swap_all(&mut memory.keys, rows.iter_mut().map(|row| &mut row.key));
        if !self.config.keep_members.is_empty() {
            swap_all(&mut memory.raw_members, rows.iter_mut().map(|row| &mut row.raw_members));
        }
        Ok(Batch { lease, samples, masked_rows, row_patches, cursor: plan.cursor.clone() })
    }
}

/// Swaps the rows' values with the batch's old ones, for the rows to overwrite.
fn swap_all<'row, T: Default + 'row>(
    memory: &mut Vec<T>,
    rows: impl ExactSizeIterator<Item = &'row mut T>,
) {
    memory.resize_with(rows.len(), T::default);
    for (kept, row) in memory.iter_mut().zip(rows) {
        std::mem::swap(kept, row);
    }
}

/// Moves the rows with samples to the front, writes their grids and where their patches are, and returns their number.
fn compact_rows(
    memory: &mut BatchArrays,
    rows: &mut [Row],
    row_patches: usize,
    patch_bytes: usize,
) -> usize {
    let BatchArrays { images, patch_coords, grids, .. } = memory;
    (*patch_coords, *grids) = (vec![[0; 2]; rows.len() * row_patches], Vec::new());
    let (mut count, row_bytes) = (0, row_patches * patch_bytes);
    for index in 0..rows.len() {
        let row = &rows[index];
        if row.sample.is_none() {
            continue;
        }
        let coords = &mut patch_coords[count * row_patches..][..row.num_patches()];
        for (patch, coords) in coords.iter_mut().enumerate() {
            let columns = row.grid[1] as usize;
            *coords = [patch / columns, patch % columns].map(|place| place as i16);
        }
        grids.push(row.grid.map(|side| side as i32));
        if count < index {
            images.copy_within(index * row_bytes..(index + 1) * row_bytes, count * row_bytes);
        }
        rows.swap(count, index);
        count += 1;
    }
    count
}

/// `[M, K]`, drawn once per batch or per row. Rows that keep fewer than K end with -1.
fn keep_patches(
    mask: &MaskConfig,
    counts: &[usize],
    mut of_batch: SampleRng,
    of_row: impl Fn(usize) -> SampleRng,
    out: &mut Vec<i64>,
) {
    let kept = |count| mask.kept_patches(count).max(1);
    let Some(longest) = counts.iter().map(|&count| kept(count)).max() else { return };
    out.clear();
    out.resize(counts.len() * longest, -1);
    let mut rows = out.chunks_exact_mut(longest).zip(counts);
    match mask.patch_draw {
        PatchDraw::Sample => {
            for (number, (row, &count)) in rows.enumerate() {
                mask::draw_patches(count, &mut row[..kept(count)], &mut of_row(number));
            }
        }
        PatchDraw::Batch => {
            let Some((first, &count)) = rows.next() else { return };
            mask::draw_patches(count, first, &mut of_batch);
            for row in 1..counts.len() {
                out.copy_within(..longest, row * longest);
            }
        }
    }
}
