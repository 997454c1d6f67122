//! Patterns of shards → what is drawn from them.

use std::slice;
use std::sync::atomic::AtomicBool;

use crate::archive::index::Index;
use crate::config::{LastBatch, LoaderConfig, Mode};
use crate::error::{ConfigError, Error};
use crate::order::{Draws, Source};
use crate::remote::settle;
use crate::shards::{self, Location};

/// Shards of an epoch, at most, where they are drawn: their list is held in memory.
const MAX_DRAWN: f64 = 1e8;

/// The shards that each pattern names.
///
/// # Errors
/// As [`shards::expand`] and [`settle`].
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

/// What is drawn from the shards of an index; nothing where they are not drawn.
///
/// # Errors
/// There is nothing to draw, or an epoch would be too long to be held.
pub(crate) fn draws(
    config: &LoaderConfig,
    patterns: &[Vec<Location>],
    index: &Index,
) -> Result<Option<Draws>, ConfigError> {
    if config.mode == Mode::Once {
        return Ok(None);
    }
    // The index has the shards in order, without those that could not be used.
    let mut opened = index
        .shards()
        .iter()
        .zip(index.counts())
        .zip(0..)
        .peekable();
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
        sources.push(Source { shards, weight });
    }
    let streamed = !index.is_complete();
    let num_samples = match config.num_samples {
        Some(samples) => samples,
        None if streamed => {
            let rule = "some shards are of unknown length: say how many samples make an epoch";
            return Err(ConfigError::new("data.num_samples", "None", rule));
        }
        None => index.num_samples(),
    };
    if streamed && config.last_batch == LastBatch::Keep {
        let rule = "shards of unknown length that are drawn with replacement never end";
        return Err(ConfigError::new("data.last_batch", "'keep'", rule));
    }
    let draws = Draws::new(sources, num_samples).ok_or_else(|| {
        let shown = format!("{:?}", config.weights);
        let rule = "no shard of a pattern whose weight is above 0 holds a sample";
        ConfigError::new("data.weights", shown, rule)
    })?;
    if !streamed && num_samples as f64 / draws.mean_samples(index.counts()) > MAX_DRAWN {
        let rule = "an epoch would have more than 100,000,000 shards; make it shorter";
        return Err(ConfigError::new("data.num_samples", num_samples, rule));
    }
    Ok(Some(draws))
}
