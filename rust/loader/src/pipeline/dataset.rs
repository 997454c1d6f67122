//! An opened data set: the checked configuration, the index, the tokenizer and this rank's share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::shard_weights;
use crate::archive::index::{Index, Opening, Shard};
use crate::archive::{Wanted, scan_file};
use crate::config::{LastBatch, LoaderConfig, TextMode};
use crate::error::{ConfigError, Error};
use crate::order::{Cursor, Division, Rules};
use crate::remote::{LocalFiles, Prefetcher, ShardProvider, ShardRequest};
use crate::shards::Location;
use crate::text::captions::needed_members;
use crate::text::tokenize::Tokenizer;

/// Ranks and legs that a generator's key can tell apart.
const MAX_RANKS: u64 = u32::MAX as u64;
const MAX_LEGS: usize = 1 << 20;

/// Everything that the threads of a run read and never change.
#[derive(Debug)]
pub struct Loader {
    /// The configuration.
    pub config: LoaderConfig,
    /// Where the samples lie.
    pub index: Index,
    /// Present if there are captions.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// What the order of the samples follows from.
    pub rules: Rules,
    /// Members that captions are drawn from.
    pub(crate) needed_members: Wanted,
}

impl Loader {
    /// Checks the configuration and reads the shards' headers; setting `cancelled` ends that early.
    ///
    /// # Errors
    /// A setting is wrong or does not fit the data, or a shard is damaged.
    pub fn open(
        config: LoaderConfig,
        tokenizer: Option<Arc<Tokenizer>>,
        rank: usize,
        world_size: usize,
        cancelled: &AtomicBool,
    ) -> Result<Self, Error> {
        config.validate()?;
        if world_size == 0 {
            return Err(ConfigError::new("world_size", world_size, "it must be at least 1").into());
        }
        if world_size as u64 > MAX_RANKS {
            let rule = "it must not be above 4,294,967,295";
            return Err(ConfigError::new("world_size", world_size, rule).into());
        }
        if rank >= world_size {
            return Err(ConfigError::new(
                "rank",
                rank,
                format!("it must be below world_size, {world_size}"),
            )
            .into());
        }
        check_tokenizer(&config, tokenizer.as_deref())?;
        let opening = Opening {
            missing: config.on_missing_shard,
            threads: config.num_threads,
            store: &config.store,
            cancelled,
        };
        let patterns = shard_weights::expand(&config, cancelled)?;
        let shards = patterns.concat();
        let index = match &config.index {
            Some(path) => Index::from_file(&shards, Path::new(path), opening)?,
            None => Index::scan(&shards, opening)?,
        };
        let draws = shard_weights::draws(&config, &patterns, &index)?;
        let rules = Rules {
            seed: config.seed,
            window: config.shuffle_window,
            batch_size: config.batch_size as u64,
            rank: rank as u64,
            world_size: world_size as u64,
            last_batch: config.last_batch,
            num_epochs: config.num_epochs,
            streamed: !index.is_complete(),
            num_samples: config.num_samples,
            draws: draws.map(Arc::new),
        };
        check_size(&config, &rules, index.counts())?;
        let (txt, json) = needed_members(&config.captions);
        Ok(Self {
            config,
            index,
            tokenizer,
            rules,
            needed_members: Wanted { txt, json },
        })
    }

    /// Samples of an epoch over all ranks; nothing where shards of unknown length hold what they hold.
    #[must_use]
    pub fn num_samples(&self) -> Option<u64> {
        self.rules.epoch_samples(self.index.counts())
    }

    /// Batches of this rank in an epoch, where that is known.
    #[must_use]
    pub fn num_batches(&self) -> Option<u64> {
        let division = self.rules.division(self.num_samples()?);
        Some(division.num_steps(self.rules.last_batch, self.rules.rank))
    }

    /// Checks that a run can go on at a cursor of these data.
    ///
    /// # Errors
    /// A leg cannot have been, or took more steps than these data have.
    pub fn check_cursor(&self, cursor: &Cursor) -> Result<(), ConfigError> {
        if cursor.legs.len() > MAX_LEGS {
            let rule = format!("it must not be above {MAX_LEGS}");
            return Err(ConfigError::new(
                "len(resume.legs)",
                cursor.legs.len(),
                rule,
            ));
        }
        let mut total = self.num_samples().unwrap_or(u64::MAX);
        for (number, leg) in cursor.legs.iter().enumerate() {
            let field = |name| format!("resume.legs[{number}].{name}");
            if !(1..=MAX_RANKS).contains(&leg.world_size) {
                let rule = "it must be between 1 and 4,294,967,295";
                return Err(ConfigError::new(field("world_size"), leg.world_size, rule));
            }
            if leg.batch_size == 0 {
                let rule = "it must be at least 1";
                return Err(ConfigError::new(field("batch_size"), 0, rule));
            }
            if self.rules.streamed && leg.world_size != self.rules.world_size {
                let rule = format!(
                    "it must be {}: an epoch over shards of unknown length goes on with as many ranks; make an index of \
                     them with `prolip data index`, or go on at the beginning of an epoch",
                    self.rules.world_size
                );
                return Err(ConfigError::new(field("world_size"), leg.world_size, rule));
            }
            let division = Division {
                total,
                world_size: leg.world_size,
                batch_size: leg.batch_size,
            };
            if leg.steps > division.max_steps() {
                let rule = format!(
                    "it must not be above the {} steps that {total} samples are good for: are these the same shards?",
                    division.max_steps()
                );
                return Err(ConfigError::new(field("steps"), leg.steps, rule));
            }
            total = division.after(leg.steps).total();
        }
        Ok(())
    }

    /// Bytes of a picture in a batch.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        let side = self.config.image_size as usize;
        side * side * 3
    }

    /// Where a shard lies.
    #[must_use]
    pub fn shard(&self, number: u32) -> &Location {
        &self.index.shards()[number as usize].location
    }

    /// What brings the shards of one run.
    ///
    /// # Errors
    /// There are shards that are no plain local files, and what reads them cannot be set up.
    pub fn provider(self: &Arc<Self>) -> Result<Arc<dyn ShardProvider>, Error> {
        let brought = |shard: &Shard| shard.location.plain_file().is_none();
        if !self.index.shards().iter().any(brought) {
            return Ok(Arc::new(LocalFiles));
        }
        let loader = Arc::clone(self);
        let request_of = move |number: u32| {
            let shard = loader.index.shards().get(number as usize)?;
            brought(shard).then(|| ShardRequest {
                location: shard.location.clone(),
                stamp: shard.stamp.clone(),
            })
        };
        let prefetcher = Prefetcher::open(&self.config.store, Box::new(request_of), scan_file)?;
        Ok(Arc::new(prefetcher))
    }
}

fn check_tokenizer(
    config: &LoaderConfig,
    tokenizer: Option<&Tokenizer>,
) -> Result<(), ConfigError> {
    if tokenizer.is_none() && !config.captions.is_empty() {
        let rule = "captions need one; without text set data.captions to ()";
        return Err(ConfigError::new("data.tokenizer", "None", rule));
    }
    let (Some(mask), Some(tokenizer)) = (&config.mask, tokenizer) else {
        return Ok(());
    };
    if mask.text_mode == TextMode::Replace && mask.mask_id == tokenizer.pad_id() {
        return Err(ConfigError::new(
            "data.mask.mask_id",
            mask.mask_id,
            "it must not be the padding id",
        ));
    }
    Ok(())
}

fn check_size(config: &LoaderConfig, rules: &Rules, counts: &[u32]) -> Result<(), Error> {
    let Some(total) = rules.epoch_samples(counts) else {
        if config.last_batch == LastBatch::Keep {
            return Ok(());
        }
        let rule = "some shards are of unknown length: say how many samples make an epoch, or make an index of the shards \
                    with `prolip data index`";
        return Err(ConfigError::new("data.num_samples", "None", rule).into());
    };
    let division = rules.division(total);
    if division.total == 0 {
        return Err(Error::NoSample(format!("{:?}", config.shards)));
    }
    if division.num_steps(config.last_batch, 0) == 0 && config.last_batch == LastBatch::Drop {
        let rule = format!(
            "with {} ranks a step needs {} samples and an epoch has {}; make it smaller or set data.last_batch to 'pad' \
             or 'keep'",
            division.world_size,
            u128::from(division.world_size) * u128::from(division.batch_size),
            division.total
        );
        return Err(ConfigError::new("data.batch_size", division.batch_size, rule).into());
    }
    Ok(())
}
