//! Checks of a configuration.

use super::{
    AugmentConfig, CaptionConfig, CaptionSource, LoaderConfig, MAX_SEQ_LEN, MAX_WINDOW, MaskConfig,
    Mode, NativeConfig, PatchDraw, StoreConfig, TXT,
};
use crate::error::{ConfigError, check};

/// Largest side of an image in a batch. Beyond it, the memory of a batch would overflow long before training could use it.
const MAX_IMAGE_SIZE: u32 = 4096;
const MAX_PATCH: usize = 256;
const MAX_THREADS: usize = 4096;

impl LoaderConfig {
    /// Checks the rules that concern the configuration alone.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let rule = "name at least one shard";
        let named = !self.shards.is_empty() || self.selection.is_some();
        check(named, "shards", "()", rule)?;
        self.validate_draws()?;
        self.validate_image_size()?;
        between("batch_size", self.batch_size, 1, MAX_WINDOW)?;
        between("shuffle_window", self.shuffle_window, 0, MAX_WINDOW)?;
        between("num_threads", self.num_threads, 1, MAX_THREADS)?;
        at_least_one("prefetch_batches", self.prefetch_batches as u64)?;
        let rule = "must be at least 1, or None for no end";
        check(self.num_epochs != Some(0), "num_epochs", 0, rule)?;
        share("max_bad_fraction", self.max_bad_fraction)?;
        at_least_one("max_pixels", self.max_pixels)?;
        at_least_one("max_member_bytes", self.max_member_bytes)?;
        at_least_one("max_caption_bytes", self.max_caption_bytes as u64)?;
        self.validate_keep_members()?;
        self.store.validate()?;
        if let Some(augment) = &self.augment {
            augment.validate()?;
        }
        if let Some(native) = &self.native {
            native.validate()?;
            let of_batch = |mask: &&MaskConfig| {
                mask.patch_draw == PatchDraw::Batch && mask.masked_fraction > 0.0
            };
            let (field, rule) = ("mask.patch_draw", "must be 'sample' for native images");
            check(!self.mask.as_ref().is_some_and(|mask| of_batch(&mask)), field, "batch", rule)?;
        }
        for (slot, caption) in self.captions.iter().enumerate() {
            caption.validate(slot)?;
        }
        if let Some(mask) = &self.mask {
            let native = self.native.as_ref();
            let smallest = native.map(|native| native.rows(native.longest()) as usize);
            mask.validate(smallest.unwrap_or(self.batch_size))?;
        }
        Ok(())
    }

    fn validate_draws(&self) -> Result<(), ConfigError> {
        let (field, weights) = ("weights", &self.weights);
        let (none, shown) = (weights.is_empty(), format!("{weights:?}"));
        let rule = "with mode 'once' nothing is drawn; set mode to 'resampled'";
        check(none || self.mode == Mode::Resampled, field, &shown, rule)?;
        let patterns = self.shards.len();
        let rule = format!("must have one weight for each of the {patterns} patterns of shards");
        check(none || weights.len() == patterns, field, &shown, rule)?;
        let rule = "each must be at least 0, and their sum above 0";
        check(none || are_weights(weights), field, &shown, rule)?;
        at_least_one("num_samples", self.num_samples.unwrap_or(1))
    }

    fn validate_image_size(&self) -> Result<(), ConfigError> {
        let (field, sides) = ("image_size", self.image_size);
        let shown = format!("{sides:?}");
        let is_none = sides == [0; 2];
        let holds = is_none || sides.iter().all(|side| (1..=MAX_IMAGE_SIZE).contains(side));
        check(holds, field, &shown, "must be between 1 and 4096, or 0 for no images")?;
        let is_plain = self.augment.is_none() && self.mask.is_none();
        let rule = "no image is decoded then, so augment and mask must be None";
        check(!is_none || is_plain, field, shown, rule)
    }

    fn validate_keep_members(&self) -> Result<(), ConfigError> {
        let kept = &self.keep_members;
        let is_good = |(place, extension): (usize, &String)| {
            let usual = !extension.is_empty() && !extension.starts_with('.');
            usual && *extension == extension.to_lowercase() && !kept[..place].contains(extension)
        };
        let rule = "must hold extensions in lower case, without the dot before them, each once";
        let all_good = kept.iter().enumerate().all(is_good);
        check(all_good, "keep_members", format!("{kept:?}"), rule)
    }
}

impl StoreConfig {
    pub fn validate(&self) -> Result<(), ConfigError> {
        at_least_one("store.connections", self.connections as u64)?;
        at_least_one("store.read_ahead_bytes", self.read_ahead_bytes)?;
        at_least_one("store.max_shard_bytes", self.max_shard_bytes)?;
        let (field, seconds) = ("store.timeout_s", self.timeout_s);
        check(seconds > 0.0 && seconds <= 86_400.0, field, seconds, "must be in (0, 86400]")?;
        let (field, bytes) = ("store.cache_bytes", self.cache_bytes);
        let rule = "a cache needs a folder: set store.cache_dir";
        check(bytes == 0 || self.cache_dir.is_some(), field, bytes, rule)
    }
}

impl AugmentConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let (field, (low, high)) = ("augment.crop_scale", self.crop_scale);
        let holds = low > 0.0 && low <= high && high <= 1.0;
        let rule = "must be two shares of the area, 0 < lowest <= highest <= 1";
        check(holds, field, format!("({low}, {high})"), rule)?;
        let (field, (low, high)) = ("augment.crop_ratio", self.crop_ratio);
        let holds = low > 0.0 && low <= high && high.is_finite();
        let rule = "must be two ratios, 0 < lowest <= highest";
        check(holds, field, format!("({low}, {high})"), rule)?;
        let [brightness, contrast, saturation, hue] = self.jitter;
        let is_strength = |strength: f64| strength.is_finite() && strength >= 0.0;
        let holds = [brightness, contrast, saturation].map(is_strength) == [true; 3];
        let shown = format!("({brightness}, {contrast}, {saturation}, {hue})");
        let rule = "brightness, contrast and saturation must be at least 0, hue between 0 and 0.5";
        let holds = holds && (0.0..=0.5).contains(&hue);
        check(holds, "augment.jitter", shown, rule)?;
        share("augment.jitter_prob", self.jitter_prob)?;
        share("augment.gray_prob", self.gray_prob)
    }
}

impl NativeConfig {
    pub fn validate(&self) -> Result<(), ConfigError> {
        between("native.patch_size", self.patch_size as usize, 1, MAX_PATCH)?;
        let (field, lengths) = ("native.seq_lens", &self.seq_lens);
        let holds =
            !lengths.is_empty() && lengths.iter().all(|length| (1..=MAX_SEQ_LEN).contains(length));
        let rule = "must hold at least one length, each between 1 and 32768";
        check(holds, field, format!("{lengths:?}"), rule)?;
        let (field, probs) = ("native.seq_len_probs", &self.seq_len_probs);
        let holds = probs.is_empty() || probs.len() == lengths.len() && are_weights(probs);
        let rule = "must have one probability for each of native.seq_lens, with a sum above 0";
        check(holds, field, format!("{probs:?}"), rule)?;
        at_least_one("native.batch_divisor", self.batch_divisor)?;
        let needed = u64::from(self.longest()).saturating_mul(self.batch_divisor);
        let rule = format!(
            "must be at least {needed}, native.batch_divisor samples of the longest sequence"
        );
        let (field, budget) = ("native.token_budget", self.token_budget);
        check(budget >= needed, field, budget, rule)?;
        between(field, budget as usize, 0, MAX_WINDOW)
    }
}

impl CaptionSource {
    fn validate_list_weights(&self, place: &str) -> Result<(), ConfigError> {
        let (field, weights) = (&format!("{place}.list_weights"), &self.list_weights);
        let (none, shown) = (weights.is_empty(), format!("{weights:?}"));
        let rule = "its weights must be at least 0, their sum above 0";
        check(none || are_weights(weights), field, &shown, rule)?;
        let is_txt = self.key == TXT;
        let Some(key) = &self.list_weights_key else {
            let rule = "a .txt is not a list: weights are for a path into the json";
            return check(none || !is_txt, field, &shown, rule);
        };
        let field = &format!("{place}.list_weights_key");
        let holds = is_path(key) && key != TXT && !is_txt && none;
        let rule = "must be a dotted path into the json that `key` is of, and `list_weights` be ()";
        check(holds, field, key, rule)
    }
}

impl CaptionConfig {
    fn validate(&self, slot: usize) -> Result<(), ConfigError> {
        let place = &format!("captions[{slot}].sources");
        let rule = "name at least one source";
        check(!self.sources.is_empty(), place, "()", rule)?;
        for (index, source) in self.sources.iter().enumerate() {
            let (place, key) = (format!("{place}[{index}]"), &source.key);
            let rule = "must be 'txt' or a dotted path into the json";
            check(is_path(key), &format!("{place}.key"), key, rule)?;
            let (field, weight) = (format!("{place}.weight"), source.weight);
            let holds = weight.is_finite() && weight >= 0.0;
            check(holds, &field, weight, "must be at least 0")?;
            source.validate_list_weights(&place)?;
            for key in &source.general {
                let rule = "must hold 'txt' or dotted paths into the json";
                check(is_path(key), &format!("{place}.general"), key, rule)?;
            }
        }
        let total: f32 = self.sources.iter().map(|source| source.weight).sum();
        let rule = "the sum of the weights must be above 0";
        check(total > 0.0 && total.is_finite(), place, total, rule)
    }
}

impl MaskConfig {
    fn validate(&self, batch_size: usize) -> Result<(), ConfigError> {
        let (field, fraction) = ("mask.masked_fraction", self.masked_fraction);
        share(field, fraction)?;
        let rule = format!(
            "must give at least one row of a batch of {batch_size}; for none set mask to None"
        );
        check(self.masked_rows(batch_size) > 0, field, fraction, rule)?;
        share("mask.text_mask_prob", self.text_mask_prob)?;
        let (field, id) = ("mask.mask_id", self.mask_id);
        check(id >= 0, field, id, "must not be negative")?;
        at_least_one("mask.num_patches", self.num_patches as u64)?;
        let (field, ratio) = ("mask.keep_ratio", self.keep_ratio);
        share(field, ratio)?;
        let rule = format!("must keep at least one of {} patches", self.num_patches);
        check(self.kept_patches(self.num_patches) > 0, field, ratio, rule)?;
        share("mask.general_prob", self.general_prob)
    }
}

fn at_least_one(field: &str, value: u64) -> Result<(), ConfigError> {
    check(value > 0, field, value, "must be at least 1")
}

fn between(field: &str, value: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    let rule = format!("must be between {least} and {most}");
    check((least..=most).contains(&value), field, value, rule)
}

fn share(field: &str, value: f64) -> Result<(), ConfigError> {
    let holds = (0.0..=1.0).contains(&value);
    check(holds, field, value, "must be between 0 and 1")
}

fn are_weights<T: Copy + Into<f64> + std::iter::Sum>(weights: &[T]) -> bool {
    let sum: f64 = weights.iter().copied().sum::<T>().into();
    weights.iter().all(|&weight| weight.into() >= 0.0) && sum > 0.0 && sum.is_finite()
}

/// Dotted, without empty parts.
fn is_path(key: &str) -> bool {
    key.split('.').all(|part| !part.is_empty())
}
