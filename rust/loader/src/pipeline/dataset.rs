//! An opened data set: what all threads of a run read. It never changes.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::shard_weights;
use crate::archive::index::{Index, OpenOptions, Shard, find};
use crate::archive::{WantedMembers, scan_file};
use crate::config::{LastBatch, LoaderConfig, TextMode};
use crate::error::{ConfigError, Error, check};
use crate::image::check_level;
use crate::order::{BatchPlan, Cursor, OrderSettings, Partition};
use crate::remote::{Prefetcher, ShardProvider, ShardRequest, settle};
use crate::rng::SampleRng;
use crate::shards::{Chosen, Location, SampleId};
use crate::text::captions::needed_members;
use crate::text::tokenize::Tokenizer;

/// Limits of the keys of the random generators.
const MAX_RANKS: u64 = u32::MAX as u64;
const MAX_LEGS: usize = 1 << 20;

pub type Selection = (Vec<Location>, Vec<Chosen>);

#[derive(Debug)]
pub struct Dataset {
    pub config: LoaderConfig,
    pub index: Index,
    /// `None` if there are no captions.
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub order: OrderSettings,
    /// The members that captions are drawn from.
    pub(crate) needed_members: WantedMembers,
}

impl Dataset {
    /// Validates the configuration and reads the shards' headers. `selection` has the sources of `config.selection` and what it
    /// chooses of each. Setting `cancelled` ends this early.
    pub fn open(
        config: LoaderConfig,
        tokenizer: Option<Arc<Tokenizer>>,
        rank: usize,
        world_size: usize,
        selection: Option<Selection>,
        cancelled: &AtomicBool,
    ) -> Result<Self, Error> {
        config.validate()?;
        check_level()?;
        check(world_size > 0, "world_size", 0, "must be at least 1")?;
        let (ranks, rule) = (world_size as u64, "must not be above 4,294,967,295");
        check(ranks <= MAX_RANKS, "world_size", ranks, rule)?;
        let rule = format!("must be below world_size, {world_size}");
        check(rank < world_size, "rank", rank, rule)?;
        check_tokenizer(&config, tokenizer.as_deref())?;
        let mut patterns = shard_weights::expand(&config, cancelled)?;
        let ((shards, chosen), left_out) = match selection {
            Some(selection) => select(&mut patterns, selection, &config, cancelled)?,
            None => ((patterns.concat(), Vec::new()), None),
        };
        let opening = OpenOptions {
            missing: config.on_missing_shard,
            threads: config.num_threads,
            store: &config.store,
            cancelled,
            chosen: &chosen,
        };
        let mut index = match &config.index {
            Some(path) => Index::from_file(&shards, Path::new(path), opening)?,
            None => Index::scan(&shards, opening)?,
        };
        index.notes.extend(left_out);
        check_samples(&config, &index)?;
        let sampler = shard_weights::sampler(&config, &patterns, &index)?;
        let native = config.native.clone().map(Arc::new);
        let order = OrderSettings {
            seed: config.seed,
            window: config.shuffle_window,
            batch_size: if native.is_some() { 1 } else { config.batch_size as u64 },
            native,
            rank: rank as u64,
            world_size: world_size as u64,
            last_batch: config.last_batch,
            num_epochs: config.num_epochs,
            streamed: !index.is_complete(),
            num_samples: config.num_samples,
            sampler: sampler.map(Arc::new),
        };
        check_size(&config, &order, index.counts())?;
        let (txt, json) = needed_members(&config.captions);
        Ok(Self { config, index, tokenizer, order, needed_members: WantedMembers { txt, json } })
    }

    /// Over all ranks; `None` if shards of unknown length are read whole.
    pub fn num_samples(&self) -> Option<u64> {
        self.order.epoch_samples(self.index.counts())
    }

    /// Of this rank, if known.
    pub fn num_batches(&self) -> Option<u64> {
        let partition = self.order.partition(self.num_samples()?);
        let room = partition.room(self.order.last_batch, self.order.rank);
        Some(self.order.steps(room, 0).0)
    }

    pub fn check_cursor(&self, cursor: &Cursor) -> Result<(), ConfigError> {
        let legs = cursor.legs.len();
        let rule = format!("must not be above {MAX_LEGS}");
        check(legs <= MAX_LEGS, "len(resume.legs)", legs, rule)?;
        let mut total = self.num_samples().unwrap_or(u64::MAX);
        for (number, leg) in cursor.legs.iter().enumerate() {
            let field = |name| format!("resume.legs[{number}].{name}");
            if !(1..=MAX_RANKS).contains(&leg.world_size) {
                let rule = "must be between 1 and 4,294,967,295";
                return Err(ConfigError::new(field("world_size"), leg.world_size, rule));
            }
            if leg.batch_size == 0 {
                let rule = "must be at least 1";
                return Err(ConfigError::new(field("batch_size"), 0, rule));
            }
            if self.order.streamed && leg.world_size != self.order.world_size {
                let rule = format!(
                    "must be {}: an epoch over shards of unknown length must resume with the same number of ranks; index \
                     the shards with `prolip data index`, or resume at the beginning of an epoch",
                    self.order.world_size
                );
                return Err(ConfigError::new(field("world_size"), leg.world_size, rule));
            }
            let partition =
                Partition { total, world_size: leg.world_size, batch_size: leg.batch_size };
            // The last step of a native run may go beyond the end.
            let rounded = self.config.native.is_some() && self.order.last_batch != LastBatch::Drop;
            if leg.steps > partition.max_steps() && !rounded {
                let rule = format!(
                    "must not be above {}, the steps available in {total} samples: are these the same shards?",
                    partition.max_steps()
                );
                return Err(ConfigError::new(field("steps"), leg.steps, rule));
            }
            total = partition.after(leg.steps).total();
        }
        Ok(())
    }

    /// Random numbers for a row of a batch; its own for each repetition within an epoch.
    pub(crate) fn rng(
        &self,
        plan: &BatchPlan,
        row: usize,
        sample: SampleId,
        purpose: u64,
    ) -> SampleRng {
        if self.order.repeats() {
            return plan.rng(self.config.seed, row, purpose);
        }
        SampleRng::new(self.config.seed, plan.epoch, sample.key(), purpose)
    }

    /// In a batch, or of images of one size.
    pub fn max_patches(&self) -> usize {
        let native = self.config.native.as_ref();
        native.map_or(self.config.batch_size, |native| native.token_budget as usize)
    }

    pub fn shard(&self, number: u32) -> &Location {
        &self.index.shards()[number as usize].location
    }

    pub fn provider(self: &Arc<Self>) -> Result<Option<Arc<dyn ShardProvider>>, Error> {
        let is_remote = |shard: &Shard| shard.location.plain_file().is_none();
        if !self.index.shards().iter().any(is_remote) {
            return Ok(None);
        }
        let dataset = Arc::clone(self);
        let request_of = move |number: u32| {
            let shard = dataset.index.shards().get(number as usize)?;
            is_remote(shard).then(|| {
                let chosen = shard.chosen.as_ref();
                let regions = chosen.and_then(|_| dataset.index.regions(number).ok());
                let wanted = (0..).map_while(|sample| regions.as_ref()?.get(sample));
                ShardRequest {
                    location: shard.location.clone(),
                    stamp: shard.stamp.clone(),
                    wanted: wanted.collect(),
                }
            })
        };
        let dataset = Arc::clone(self);
        let scan = move |number: u32, file: &File| {
            let regions = scan_file(file, dataset.config.store.require_archive_end);
            dataset.index.arrived(number, regions.map_err(|error| error.to_string())?)
        };
        let store = &self.config.store;
        let prefetcher = Prefetcher::open(store, Box::new(request_of), Box::new(scan))?;
        Ok(Some(Arc::new(prefetcher)))
    }
}

/// The shards that a selection names, what is chosen of each, and a note if it has other sources. Without patterns, its
/// sources are the pattern.
fn select(
    patterns: &mut Vec<Vec<Location>>,
    (sources, chosen): Selection,
    config: &LoaderConfig,
    cancelled: &AtomicBool,
) -> Result<(Selection, Option<String>), Error> {
    if patterns.is_empty() {
        let mut shards = sources.clone();
        let text = Some("txt".as_ref());
        shards.retain(|shard| {
            !matches!(shard, Location::File(path) if path.extension() == text || path.is_dir())
        });
        patterns.push(settle(shards, &config.store, cancelled)?);
    }
    let shards = patterns.concat();
    let (mut of_shards, mut others) = (vec![None; shards.len()], Vec::new());
    for ((chosen, place), source) in chosen.into_iter().zip(find(&shards, &sources)).zip(&sources) {
        match place {
            Some(place) => of_shards[place as usize] = Some(chosen),
            None => others.push(source),
        }
    }
    let (count, first) = (others.len(), others.first());
    if let Some(source) = first.filter(|_| count == sources.len()) {
        let rule = "must choose from the shards, not from other ones, folders or text files";
        return Err(ConfigError::new("selection", source, rule).into());
    }
    let note = first.map(|source| {
        format!(
            "selection: {count} of its sources are not read, such as {source}: not among the shards"
        )
    });
    let named = shards.into_iter().zip(of_shards);
    Ok((named.filter_map(|(shard, chosen)| Some((shard, chosen?))).unzip(), note))
}

fn check_tokenizer(
    config: &LoaderConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<(), ConfigError> {
    let holds = tokenizer.is_some() || config.captions.is_empty();
    let rule = "captions need one; without text set captions to ()";
    check(holds, "tokenizer", "None", rule)?;
    let (Some(mask), Some(tokenizer)) = (&config.mask, tokenizer) else {
        return Ok(());
    };
    let id = mask.mask_id;
    let holds = mask.text_mode == TextMode::Remove || id != tokenizer.pad_id();
    check(holds, "mask.mask_id", id, "must not be the padding id")
}

fn check_samples(config: &LoaderConfig, index: &Index) -> Result<(), Error> {
    if index.counts().iter().any(|&count| count > 0) {
        return Ok(());
    }
    let patterns = config.shards.iter().map(|pattern| Location::of(pattern).to_string());
    let shown = format!("{:?}", patterns.collect::<Vec<_>>());
    match index.notes().first().filter(|_| index.shards().is_empty()) {
        Some(first) => {
            let rule = format!("none of the shards can be opened; the first: {first}");
            Err(ConfigError::new("shards", shown, rule).into())
        }
        None => Err(Error::NoSample(shown)),
    }
}

fn check_size(config: &LoaderConfig, order: &OrderSettings, counts: &[u32]) -> Result<(), Error> {
    let Some(total) = order.epoch_samples(counts) else {
        if config.last_batch == LastBatch::Keep {
            return Ok(());
        }
        let rule = "some shards have unknown lengths: set the number of samples per epoch, or index the shards with \
                    `prolip data index`";
        return Err(ConfigError::new("num_samples", "None", rule).into());
    };
    let partition = order.partition(total);
    let room = partition.room(config.last_batch, 0);
    if order.steps(room, 0).0 == 0 && config.last_batch == LastBatch::Drop {
        let rows = order.step(0).1;
        let rule = format!(
            "a step needs {} samples and an epoch has {}; make it smaller, or in a loop of your own set \
             last_batch to 'pad' or 'keep'",
            u128::from(partition.world_size) * u128::from(rows),
            partition.total
        );
        // Without a section: in training, the batch of all ranks is an option of that name.
        let field = if order.native.is_some() { "native.token_budget" } else { "batch_size" };
        return Err(ConfigError::new(field, format!("{rows} per rank"), rule).into());
    }
    Ok(())
}
