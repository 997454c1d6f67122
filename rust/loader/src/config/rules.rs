//! Checks of a configuration.

use super::{
    AugmentConfig, CaptionConfig, CaptionSource, LoaderConfig, MAX_WINDOW, MaskConfig, Mode,
    StoreConfig, TXT,
};
use crate::error::ConfigError;

/// Largest side of an image in a batch. Beyond it, the memory of a batch would overflow long before training could use it.
const MAX_IMAGE_SIZE: u32 = 4096;
/// Most bytes of a batch's images: more than any machine has.
const MAX_BATCH_BYTES: u128 = 1 << 40;
/// Most simultaneous requests: more than any server accepts.
const MAX_CONNECTIONS: usize = 1024;
const MAX_TIMEOUT_S: f64 = 86_400.0;

impl LoaderConfig {
    /// Checks every rule that concerns the configuration alone.
    ///
    /// # Errors
    /// The first field that breaks a rule, with its value and the rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check(
            !self.shards.is_empty(),
            "data.shards",
            "()",
            "name at least one shard",
        )?;
        self.validate_draws()?;
        self.validate_image_size()?;
        self.validate_batch_size()?;
        at_most_a_window("data.shuffle_window", self.shuffle_window)?;
        at_least_one("data.num_threads", self.num_threads as u64)?;
        at_least_one("data.prefetch_batches", self.prefetch_batches as u64)?;
        check(
            self.num_epochs != Some(0),
            "data.num_epochs",
            0,
            "it must be at least 1, or None for no end",
        )?;
        self.validate_sample_limits()?;
        self.validate_keep_members()?;
        self.store.validate()?;
        if let Some(augment) = &self.augment {
            augment.validate()?;
        }
        for (slot, caption) in self.captions.iter().enumerate() {
            caption.validate(slot)?;
        }
        if let Some(mask) = &self.mask {
            mask.validate(self.batch_size)?;
        }
        Ok(())
    }

    fn validate_draws(&self) -> Result<(), ConfigError> {
        let shown = format!("{:?}", self.weights);
        check(
            self.weights.is_empty() || self.mode == Mode::Resampled,
            "data.weights",
            &shown,
            "with data.mode 'once' nothing is drawn; set data.mode to 'resampled'",
        )?;
        check(
            self.weights.is_empty() || self.weights.len() == self.shards.len(),
            "data.weights",
            &shown,
            &format!(
                "it must have one weight for each of the {} patterns of data.shards",
                self.shards.len()
            ),
        )?;
        let sum: f64 = self.weights.iter().sum();
        check(
            self.weights.is_empty()
                || self.weights.iter().all(|&weight| weight >= 0.0) && sum > 0.0 && sum.is_finite(),
            "data.weights",
            &shown,
            "each must be at least 0, and their sum above 0",
        )?;
        at_least_one("data.num_samples", self.num_samples.unwrap_or(1))
    }

    fn validate_image_size(&self) -> Result<(), ConfigError> {
        check(
            self.image_size <= MAX_IMAGE_SIZE,
            "data.image_size",
            self.image_size,
            "it must be at most 4096",
        )?;
        check(
            self.image_size > 0 || self.augment.is_none() && self.mask.is_none(),
            "data.image_size",
            0,
            "no image is decoded then, so data.augment and data.mask must be None",
        )
    }

    fn validate_batch_size(&self) -> Result<(), ConfigError> {
        let (field, rows) = ("data.batch_size", self.batch_size);
        at_least_one(field, rows as u64)?;
        at_most_a_window(field, rows)?;
        let side = u128::from(self.image_size);
        check(
            rows as u128 * side * side * 3 <= MAX_BATCH_BYTES,
            field,
            rows,
            "so many images take more than 1 TiB of memory",
        )
    }

    fn validate_sample_limits(&self) -> Result<(), ConfigError> {
        share("data.max_bad_fraction", self.max_bad_fraction)?;
        at_least_one("data.max_pixels", self.max_pixels)?;
        at_least_one("data.max_member_bytes", self.max_member_bytes)?;
        at_least_one("data.max_caption_bytes", self.max_caption_bytes as u64)
    }

    fn validate_keep_members(&self) -> Result<(), ConfigError> {
        for (place, extension) in self.keep_members.iter().enumerate() {
            let usual = !extension.is_empty() && !extension.starts_with('.');
            check(
                usual
                    && *extension == extension.to_lowercase()
                    && !self.keep_members[..place].contains(extension),
                "data.keep_members",
                format_args!("{:?}", self.keep_members),
                "it must hold extensions in lower case, without the dot before them, each once",
            )?;
        }
        Ok(())
    }
}

impl StoreConfig {
    /// Checks every rule.
    ///
    /// # Errors
    /// The first field that breaks a rule, with its value and the rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check(
            (1..=MAX_CONNECTIONS).contains(&self.connections),
            "data.store.connections",
            self.connections,
            "it must be between 1 and 1024",
        )?;
        at_least_one("data.store.read_ahead_bytes", self.read_ahead_bytes)?;
        at_least_one("data.store.max_shard_bytes", self.max_shard_bytes)?;
        check(
            self.timeout_s > 0.0 && self.timeout_s <= MAX_TIMEOUT_S,
            "data.store.timeout_s",
            self.timeout_s,
            "it must be above 0 and at most a day, 86400",
        )?;
        check(
            self.cache_bytes == 0 || self.cache_dir.is_some(),
            "data.store.cache_bytes",
            self.cache_bytes,
            "a cache needs a folder: set data.store.cache_dir",
        )
    }
}

impl AugmentConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let (low, high) = self.crop_scale;
        check(
            low > 0.0 && low <= high && high <= 1.0,
            "data.augment.crop_scale",
            format_args!("({low}, {high})"),
            "it must be two shares of the area, 0 < lowest <= highest <= 1",
        )?;
        let (low, high) = self.crop_ratio;
        check(
            low > 0.0 && low <= high && high.is_finite(),
            "data.augment.crop_ratio",
            format_args!("({low}, {high})"),
            "it must be two ratios, 0 < lowest <= highest",
        )?;
        let [brightness, contrast, saturation, hue] = self.jitter;
        check(
            [brightness, contrast, saturation]
                .iter()
                .all(|strength| strength.is_finite() && *strength >= 0.0)
                && (0.0..=0.5).contains(&hue),
            "data.augment.jitter",
            format_args!("({brightness}, {contrast}, {saturation}, {hue})"),
            "brightness, contrast and saturation must be at least 0, hue between 0 and 0.5",
        )?;
        share("data.augment.jitter_prob", self.jitter_prob)?;
        share("data.augment.gray_prob", self.gray_prob)
    }
}

impl CaptionSource {
    fn validate_list_weights(&self, place: &str) -> Result<(), ConfigError> {
        let weights = &self.list_weights;
        let total: f32 = weights.iter().sum();
        check(
            weights.is_empty()
                || weights.iter().all(|weight| *weight >= 0.0) && total > 0.0 && total.is_finite(),
            &format!("{place}.list_weights"),
            format_args!("{weights:?}"),
            "its weights must be at least 0, their sum above 0",
        )?;
        let Some(key) = &self.list_weights_key else {
            return check(
                weights.is_empty() || self.key != TXT,
                &format!("{place}.list_weights"),
                format_args!("{weights:?}"),
                "a .txt is not a list: weights are for a path into the json",
            );
        };
        check(
            is_path(key) && key != TXT && self.key != TXT && weights.is_empty(),
            &format!("{place}.list_weights_key"),
            key,
            "it must be a dotted path into the json that `key` is of, and `list_weights` be ()",
        )
    }
}

impl CaptionConfig {
    fn validate(&self, slot: usize) -> Result<(), ConfigError> {
        let place = format!("data.captions[{slot}].sources");
        check(
            !self.sources.is_empty(),
            &place,
            "()",
            "name at least one source",
        )?;
        for (index, source) in self.sources.iter().enumerate() {
            let place = format!("{place}[{index}]");
            check(
                is_path(&source.key),
                &format!("{place}.key"),
                &source.key,
                "it must be 'txt' or a dotted path into the json",
            )?;
            check(
                source.weight.is_finite() && source.weight >= 0.0,
                &format!("{place}.weight"),
                source.weight,
                "it must be at least 0",
            )?;
            source.validate_list_weights(&place)?;
            for key in &source.general {
                check(
                    is_path(key),
                    &format!("{place}.general"),
                    key,
                    "it must hold 'txt' or dotted paths into the json",
                )?;
            }
        }
        let total: f32 = self.sources.iter().map(|source| source.weight).sum();
        check(
            total > 0.0 && total.is_finite(),
            &place,
            total,
            "the sum of the weights must be above 0",
        )
    }
}

impl MaskConfig {
    fn validate(&self, batch_size: usize) -> Result<(), ConfigError> {
        share("data.mask.masked_fraction", self.masked_fraction)?;
        check(
            self.masked_rows(batch_size) > 0,
            "data.mask.masked_fraction",
            self.masked_fraction,
            &format!(
                "it must give at least one row of a batch of {batch_size}; for none set data.mask to None"
            ),
        )?;
        share("data.mask.text_mask_prob", self.text_mask_prob)?;
        check(
            self.mask_id >= 0,
            "data.mask.mask_id",
            self.mask_id,
            "it must not be negative",
        )?;
        at_least_one("data.mask.num_patches", self.num_patches as u64)?;
        share("data.mask.keep_ratio", self.keep_ratio)?;
        check(
            self.kept_patches() > 0,
            "data.mask.keep_ratio",
            self.keep_ratio,
            &format!("it must keep at least one of {} patches", self.num_patches),
        )?;
        share("data.mask.general_prob", self.general_prob)
    }
}

fn check(
    holds: bool,
    field: &str,
    value: impl std::fmt::Display,
    rule: &str,
) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::new(field, value, rule))
    }
}

fn at_least_one(field: &str, value: u64) -> Result<(), ConfigError> {
    check(value > 0, field, value, "it must be at least 1")
}

fn at_most_a_window(field: &str, value: usize) -> Result<(), ConfigError> {
    let rule = "it must be at most 2,147,483,648; so many indices are held in memory";
    check(value <= MAX_WINDOW, field, value, rule)
}

fn share(field: &str, value: f64) -> Result<(), ConfigError> {
    check(
        (0.0..=1.0).contains(&value),
        field,
        value,
        "it must be between 0 and 1",
    )
}

/// Whether the key is a dotted path without empty parts.
fn is_path(key: &str) -> bool {
    key.split('.').all(|part| !part.is_empty())
}
