//! An opened data set: the checked configuration, the index, the tokenizer and this rank's share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::caption::needed_members;
use crate::config::{LastBatch, LoaderConfig, TextMode};
use crate::error::{ConfigError, Error};
use crate::index::{Index, Opening};
use crate::location::Location;
use crate::order::{Cursor, Split};
use crate::read::Wanted;
use crate::shards;
use crate::supply::{LocalFiles, Supply};
use crate::tokenize::Tokenizer;

/// Everything that the threads of a run read and never change.
#[derive(Debug)]
pub struct Loader {
    /// The configuration.
    pub config: LoaderConfig,
    /// Where the samples lie.
    pub index: Index,
    /// Present if there are captions.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// This rank's share.
    pub split: Split,
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
            cancelled,
        };
        let shards = shards::expand(&config.shards, config.on_missing_shard)?;
        let index = match &config.index {
            Some(path) => Index::from_file(&shards, Path::new(path), opening)?,
            None => Index::scan(&shards, opening)?,
        };
        let split = Split {
            total: index.num_samples(),
            batch_size: config.batch_size as u64,
            rank: rank as u64,
            world_size: world_size as u64,
            last_batch: config.last_batch,
        };
        check_size(&config, split)?;
        let (txt, json) = needed_members(&config.captions);
        Ok(Self {
            config,
            index,
            tokenizer,
            split,
            needed_members: Wanted { txt, json },
        })
    }

    /// Checks that a run can go on at a cursor of these data.
    ///
    /// # Errors
    /// The cursor lies beyond the data, or within an epoch that is divided otherwise.
    pub fn check_cursor(&self, cursor: Cursor) -> Result<(), ConfigError> {
        let split = self.split;
        let samples = |rule| Err(ConfigError::new("resume.samples", cursor.samples, rule));
        if cursor.samples > split.total {
            return samples(format!(
                "it must not be above the {} samples of an epoch: are these the same shards?",
                split.total
            ));
        }
        if cursor.samples == 0 || cursor.samples == split.total {
            return Ok(());
        }
        if cursor.parts != split.parts() {
            let rule = format!(
                "it must be {}: the epoch was begun in other parts than this run's; resume with as many ranks and the same \
                 data.last_batch, or at the beginning of an epoch",
                split.parts()
            );
            return Err(ConfigError::new("resume.parts", cursor.parts, rule));
        }
        let step = split.global_batch();
        if split.last_batch == LastBatch::Keep && !cursor.samples.is_multiple_of(step) {
            return samples(format!(
                "it must be a multiple of the {step} samples of a step: resume with the same data.batch_size"
            ));
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
    #[must_use]
    pub fn supply(&self) -> Arc<dyn Supply> {
        Arc::new(LocalFiles)
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

fn check_size(config: &LoaderConfig, split: Split) -> Result<(), ConfigError> {
    if split.total == 0 {
        return Err(ConfigError::new(
            "data.shards",
            format!("{:?}", config.shards),
            "the shards hold no sample",
        ));
    }
    if split.last_batch == LastBatch::Drop && split.total < split.global_batch() {
        let rule = format!(
            "with {} ranks a step needs {} samples and the shards hold {}; make it smaller or set data.last_batch to 'keep'",
            split.world_size,
            split.global_batch(),
            split.total
        );
        return Err(ConfigError::new("data.batch_size", split.batch_size, rule));
    }
    Ok(())
}
