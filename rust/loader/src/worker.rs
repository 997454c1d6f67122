//! What a thread does: fill slots, and finish the batch of which it filled the last one.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::augment::{self, Scratch};
use crate::batch::{Batch, Lease, Row, Slot};
use crate::caption::Texts;
use crate::config::{LastBatch, LoaderConfig, MaskConfig, PatchDraw};
use crate::decode::{Decoder, Rgb8};
use crate::error::{Error, SampleError};
use crate::loader::Loader;
use crate::mask;
use crate::pipeline::{Filling, Shared};
use crate::read::Reader;
use crate::rng::{SampleRng, stream};
use crate::stats::Stage;
use crate::tokenize::Tokenizer;

/// Substitutes that are tried for one place before the data are called unusable.
const MAX_SUBSTITUTES: u32 = 1000;

/// A thread's body: works until the run is over, and turns a panic into the run's error.
pub(crate) fn run(shared: &Shared) {
    let mut worker = Worker::new(shared);
    let outcome = catch_unwind(AssertUnwindSafe(|| worker.work()));
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => shared.stop(error),
        Err(panic) => {
            shared.stop(Error::Panicked {
                stage: worker.stage.name(),
                message: panic_message(panic.as_ref()),
            });
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

struct Worker<'shared> {
    shared: &'shared Shared,
    loader: &'shared Loader,
    config: &'shared LoaderConfig,
    /// Where it is, for the message should it panic.
    stage: Stage,
    reader: Reader,
    decoder: Decoder,
    picture: Rgb8,
    scratch: Scratch,
}

impl<'shared> Worker<'shared> {
    fn new(shared: &'shared Shared) -> Self {
        let config = &shared.loader.config;
        Self {
            shared,
            loader: &shared.loader,
            config,
            stage: Stage::Idle,
            reader: Reader::default(),
            decoder: Decoder::new(config.max_pixels),
            picture: Rgb8::default(),
            scratch: Scratch::default(),
        }
    }

    fn work(&mut self) -> Result<(), Error> {
        while let Some(filling) = self.shared.batch_with_work() {
            while let Some(mut slot) = filling.slots.claim() {
                self.fill(&filling, &mut slot)?;
                if self.shared.is_stopping() {
                    return Ok(());
                }
                if let Some(whole) = slot.finish()
                    && let (Some(lease), rows) = whole.take()
                {
                    self.finish(&filling, lease, rows)?;
                }
            }
        }
        Ok(())
    }

    /// Fills a slot with its sample, or with a substitute where that is bad and the batch must be full.
    fn fill(&mut self, filling: &Filling, slot: &mut Slot<'_>) -> Result<(), Error> {
        let (epoch, position) = (
            filling.plan.epoch,
            filling.plan.positions.start + slot.index() as u64,
        );
        let mut id = filling.samples[slot.index()];
        let mut substitutes = SampleRng::new(self.config.seed, epoch, position, stream::SUBSTITUTE);
        for _ in 0..=MAX_SUBSTITUTES {
            if self.shared.is_stopping() {
                // The slot stays as it is: the caller looks too, and nobody reads the batch.
                return Ok(());
            }
            self.shared.counters.tried();
            match self.load(epoch, id, slot.parts()) {
                Ok(()) => {
                    slot.parts().1.sample = Some(id);
                    return Ok(());
                }
                Err(error) => {
                    let (path, key) = self.loader.place(id);
                    let place = format_args!("shard {}, sample {key}", path.display());
                    self.shared
                        .counters
                        .bad(place, &error, self.config.max_bad_fraction)?;
                }
            }
            if self.config.last_batch == LastBatch::Keep {
                slot.parts().1.sample = None;
                return Ok(());
            }
            let total = self.loader.index.num_samples();
            id = ((substitutes.uniform() * total as f64) as u64).min(total - 1);
        }
        Err(self
            .shared
            .counters
            .too_many_bad(self.config.max_bad_fraction))
    }

    fn load(
        &mut self,
        epoch: u64,
        id: u64,
        (pixels, row): (&mut [u8], &mut Row),
    ) -> Result<(), SampleError> {
        let counters = &self.shared.counters;
        let begun = Instant::now();
        self.stage = Stage::Read;
        let (shard, sample) = self.loader.index.sample(id);
        if let Some(extension) = &sample.duplicate {
            return Err(SampleError::Duplicate(extension.to_string()));
        }
        let image = sample.image.ok_or(SampleError::NoImage)?;
        let (needs_txt, needs_json) = self.loader.needed_members;
        let keep_json = self.config.keep_json;
        let spans = [
            Some(image),
            sample.txt.filter(|_| needs_txt),
            sample.json.filter(|_| needs_json || keep_json),
        ];
        let path = &self.loader.index.shards()[shard].path;
        let [image, txt, json] = self.reader.read(shard, path, spans)?;
        let begun = counters.passed(Stage::Read, begun);

        self.stage = Stage::Caption;
        if !self.config.captions.is_empty() {
            let texts = Texts::new(txt, json.filter(|_| needs_json))?;
            let mut rng = SampleRng::new(self.config.seed, epoch, id, stream::CAPTION);
            let general_prob = self
                .config
                .mask
                .as_ref()
                .map_or(0.0, |mask| mask.general_prob);
            texts.draw(
                &self.config.captions,
                general_prob,
                &mut rng,
                &mut row.captions,
            )?;
        }
        if keep_json {
            let json =
                std::str::from_utf8(json.unwrap_or(b"null")).map_err(|_| SampleError::NotUtf8)?;
            row.json = Some(json.to_owned());
        }
        let begun = counters.passed(Stage::Caption, begun);

        self.stage = Stage::Decode;
        self.decoder
            .decode(image.unwrap_or_default(), &mut self.picture)?;
        let begun = counters.passed(Stage::Decode, begun);

        self.stage = Stage::Augment;
        let (picture, size) = (&self.picture, self.config.image_size);
        match &self.config.augment {
            Some(augment) => {
                let mut rng = SampleRng::new(self.config.seed, epoch, id, stream::AUGMENT);
                let draw = augment::draw(augment, picture.width(), picture.height(), &mut rng);
                augment::apply(picture, &draw, size, &mut self.scratch, pixels);
            }
            None => augment::evaluate(picture, size, &mut self.scratch, pixels),
        }
        counters.passed(Stage::Augment, begun);
        Ok(())
    }

    /// Texts and masks of a batch whose slots are all filled, and the way to the reader.
    fn finish(
        &mut self,
        filling: &Filling,
        mut lease: Lease,
        mut rows: Vec<Row>,
    ) -> Result<(), Error> {
        let count = keep_good_rows(&mut lease, &mut rows, self.loader.image_bytes());
        let good = &rows[..count];
        let samples: Vec<u64> = good.iter().filter_map(|row| row.sample).collect();
        let counters = &self.shared.counters;
        let masked_rows = self
            .config
            .mask
            .as_ref()
            .map_or(0, |mask| mask.masked_rows(count));
        if let Some(tokenizer) = &self.loader.tokenizer {
            let place = |source| {
                let (path, key) = self.loader.place(samples.first().copied().unwrap_or(0));
                Error::Tokenize {
                    shard: path.to_owned(),
                    key: key.to_owned(),
                    source,
                }
            };
            let begun = Instant::now();
            self.stage = Stage::Tokenize;
            let texts = Tokens {
                tokenizer,
                rows: good,
                slots: self.config.captions.len(),
            };
            texts.encode(&mut lease.memory.token_ids).map_err(place)?;
            let begun = counters.passed(Stage::Tokenize, begun);
            if let Some(mask) = &self.config.mask {
                self.stage = Stage::Mask;
                let memory = &mut lease.memory;
                let draws = |row: usize| {
                    SampleRng::new(
                        self.config.seed,
                        filling.plan.epoch,
                        samples[row],
                        stream::MASK,
                    )
                };
                texts
                    .mask(
                        &memory.token_ids,
                        masked_rows,
                        mask,
                        draws,
                        &mut memory.masked_token_ids,
                    )
                    .map_err(place)?;
                counters.passed(Stage::Mask, begun);
            }
        }
        if let Some(mask) = &self.config.mask {
            let key = (
                self.config.seed,
                filling.plan.epoch,
                filling.plan.positions.start,
            );
            keep_patches(
                mask,
                key,
                &samples[..masked_rows],
                &mut lease.memory.kept_patches,
            );
        }
        let json = self.config.keep_json.then(|| {
            rows[..count]
                .iter_mut()
                .map(|row| row.json.take().unwrap_or_default())
                .collect()
        });
        let batch = Batch {
            lease,
            samples,
            masked_rows,
            json,
            cursor: filling.plan.cursor,
        };
        self.stage = Stage::Idle;
        self.shared.finished(filling.number, batch, rows);
        Ok(())
    }
}

/// Moves the rows that hold a sample to the front, pixels with them; gives their number.
fn keep_good_rows(lease: &mut Lease, rows: &mut [Row], image_bytes: usize) -> usize {
    let mut count = 0;
    for index in 0..rows.len() {
        if rows[index].sample.is_some() {
            if count < index {
                rows.swap(count, index);
                let start = index * image_bytes;
                lease
                    .memory
                    .images
                    .copy_within(start..start + image_bytes, count * image_bytes);
            }
            count += 1;
        }
    }
    count
}

/// The patches that masked rows keep, `[M, K]`; drawn per batch from its first position, or per sample from its id.
fn keep_patches(
    mask: &MaskConfig,
    (seed, epoch, position): (u64, u64, u64),
    samples: &[u64],
    out: &mut Vec<i64>,
) {
    let kept = mask.kept_patches();
    out.resize(samples.len() * kept, 0);
    let mut rows = out.chunks_exact_mut(kept);
    match mask.patch_draw {
        PatchDraw::Sample => {
            for (row, &sample) in rows.zip(samples) {
                let mut rng = SampleRng::new(seed, epoch, sample, stream::PATCHES);
                mask::draw_patches(mask.num_patches, row, &mut rng);
            }
        }
        PatchDraw::Batch => {
            let Some(first) = rows.next() else { return };
            let mut rng = SampleRng::new(seed, epoch, position, stream::PATCHES);
            mask::draw_patches(mask.num_patches, first, &mut rng);
            for row in 1..samples.len() {
                out.copy_within(..kept, row * kept);
            }
        }
    }
}

/// The texts of a batch on their way to ids.
struct Tokens<'batch> {
    tokenizer: &'batch Tokenizer,
    rows: &'batch [Row],
    slots: usize,
}

impl Tokens<'_> {
    /// Ids of every caption, `[C, B, L]`.
    fn encode(&self, out: &mut Vec<i32>) -> Result<(), crate::tokenize::TokenizeError> {
        let mut captions = Vec::with_capacity(self.slots * self.rows.len());
        for slot in 0..self.slots {
            captions.extend(self.rows.iter().map(|row| row.captions[slot].text.as_str()));
        }
        out.resize(captions.len() * self.tokenizer.context_length(), 0);
        self.tokenizer.encode_batch(&captions, out)
    }

    /// Masked ids of the first `masked` rows, `[C, M, L]`: a more general caption where one was drawn, else tokens
    /// masked by the draws of the row's sample.
    fn mask(
        &self,
        ids: &[i32],
        masked: usize,
        config: &MaskConfig,
        draws: impl Fn(usize) -> SampleRng,
        out: &mut Vec<i32>,
    ) -> Result<(), crate::tokenize::TokenizeError> {
        let length = self.tokenizer.context_length();
        out.resize(self.slots * masked * length, 0);
        let (mut general, mut places) = (Vec::new(), Vec::new());
        let mut rngs: Vec<SampleRng> = (0..masked).map(draws).collect();
        for slot in 0..self.slots {
            for (row, rng) in rngs.iter_mut().enumerate() {
                let place = (slot * masked + row) * length;
                let text = &self.rows[row].captions[slot];
                if let Some(caption) = &text.general {
                    general.push(caption.as_str());
                    places.push(place);
                    continue;
                }
                let from = (slot * self.rows.len() + row) * length;
                let target = &mut out[place..place + length];
                target.copy_from_slice(&ids[from..from + length]);
                mask::mask_text(target, self.tokenizer.pad_id(), config, rng);
            }
        }
        let mut encoded = vec![0; general.len() * length];
        self.tokenizer.encode_batch(&general, &mut encoded)?;
        for (place, row) in places.into_iter().zip(encoded.chunks_exact(length)) {
            out[place..place + length].copy_from_slice(row);
        }
        Ok(())
    }
}
