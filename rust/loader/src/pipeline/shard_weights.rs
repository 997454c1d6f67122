//! Expands the configured patterns to shards, and weights the shards for sampling.

use std::slice;
use std::sync::atomic::AtomicBool;

use crate::archive::index::Index;
use crate::config::{LastBatch, LoaderConfig, Mode};
use crate::error::{ConfigError, Error};
use crate::order::{ShardSampler, WeightedShards};
use crate::remote::settle;
use crate::shards::{self, Location};

/// Drawn shards per epoch, at most: their list is in memory.
const MAX_DRAWN: f64 = 1e8;

pub(crate) fn expand(
    config: &LoaderConfig,
    cancelled: &AtomicBool,
) -> Result<Vec<Vec<Location>>, Error> {
    let patterns = config.shards.iter().map(slice::from_ref);
    patterns
        .map(|pattern| {
            let shards = shards::expand(pattern, config.on_missing_shard)?;
            settle(shards, &config.store, cancelled)
        })
        .collect()
}

pub(crate) fn sampler(
    config: &LoaderConfig,
    patterns: &[Vec<Location>],
    index: &Index,
) -> Result<Option<ShardSampler>, ConfigError> {
    if config.mode == Mode::Once {
        return Ok(None);
    }
    // The index has the same order, without the shards that were skipped.
    let mut opened = index.shards().iter().zip(index.counts()).zip(0..).peekable();
    let mut sources = Vec::with_capacity(patterns.len());
    for (number, pattern) in patterns.iter().enumerate() {
        let mut shards = Vec::with_capacity(pattern.len());
        for location in pattern {
            let same = opened.next_if(|((shard, _), _)| shard.location == *location);
            if let Some(((_, &count), place)) = same
                && count > 0
            {
                shards.push(place);
            }
        }
        let weight = config.weights.get(number).copied().unwrap_or(1.0);
        sources.push(WeightedShards { shards, weight });
    }
    let streamed = !index.is_complete();
    let num_samples = match config.num_samples {
        Some(samples) => samples,
        None if streamed => {
            let rule = "some shards have unknown lengths: set the number of samples per epoch";
            return Err(ConfigError::new("num_samples", "None", rule));
        }
        None => index.num_samples(),
    };
    if streamed && config.last_batch == LastBatch::Keep {
        let rule =
            "an epoch of shards drawn with replacement never ends if their lengths are unknown";
        return Err(ConfigError::new("last_batch", "'keep'", rule));
    }
    let sampler = ShardSampler::new(sources, num_samples).ok_or_else(|| {
        let shown = format!("{:?}", config.weights);
        let rule = "no shard of a pattern whose weight is above 0 holds a sample";
        ConfigError::new("weights", shown, rule)
    })?;
    if !streamed && num_samples as f64 / sampler.mean_samples(index.counts()) > MAX_DRAWN {
        let rule = "an epoch would have more than 100,000,000 shards; make it shorter";
        return Err(ConfigError::new("num_samples", num_samples, rule));
    }
    Ok(Some(sampler))
}
