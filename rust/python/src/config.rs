//! The dataclasses of `prolip.data`, read by attribute. Field names equal theirs; a test compares them.

use prolip_loader::config as core;
use prolip_loader::error::ConfigError;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;

#[derive(FromPyObject)]
pub struct AugmentConfig {
    crop_scale: (f64, f64),
    crop_ratio: (f64, f64),
    jitter: [f64; 4],
    jitter_prob: f64,
    gray_prob: f64,
}

#[derive(FromPyObject)]
pub struct CaptionSource {
    key: String,
    weight: f32,
    general: Vec<String>,
    list_weights: Vec<f32>,
    list_weights_key: Option<String>,
}

#[derive(FromPyObject)]
pub struct CaptionConfig {
    sources: Vec<CaptionSource>,
}

#[derive(FromPyObject)]
pub struct MaskConfig {
    masked_fraction: f64,
    text_mode: String,
    text_mask_prob: f64,
    mask_id: Integer,
    patch_draw: String,
    keep_ratio: f64,
    num_patches: Integer,
    general_prob: f64,
}

#[derive(FromPyObject)]
pub struct StoreConfig {
    allow_pipe: bool,
    connections: Integer,
    read_ahead_bytes: Integer,
    cache_dir: Option<std::path::PathBuf>,
    cache_bytes: Integer,
    retries: Integer,
    timeout_s: f64,
}

/// `prolip.data.LoaderConfig` without its tokenizer, which comes built.
#[derive(FromPyObject)]
pub struct LoaderConfig {
    shards: Vec<String>,
    weights: Vec<f64>,
    index: Option<String>,
    mode: String,
    num_samples: Option<Integer>,
    batch_size: Integer,
    image_size: Integer,
    augment: Option<AugmentConfig>,
    captions: Vec<CaptionConfig>,
    mask: Option<MaskConfig>,
    seed: Integer,
    num_epochs: Option<Integer>,
    shuffle_window: Integer,
    last_batch: String,
    num_threads: Integer,
    prefetch_batches: Integer,
    max_bad_fraction: f64,
    max_pixels: Integer,
    max_member_bytes: Integer,
    max_caption_bytes: Integer,
    on_missing_shard: String,
    store: StoreConfig,
    keep_members: Vec<String>,
}

impl LoaderConfig {
    /// The loader's own configuration.
    pub fn into_core(self) -> Result<core::LoaderConfig, ConfigError> {
        let num_threads: usize = number("data.num_threads", self.num_threads)?;
        Ok(core::LoaderConfig {
            shards: self.shards,
            weights: self.weights,
            index: self.index,
            mode: one_of(
                "data.mode",
                &self.mode,
                &[
                    ("once", core::Mode::Once),
                    ("resampled", core::Mode::Resampled),
                ],
            )?,
            num_samples: self
                .num_samples
                .map(|samples| number("data.num_samples", samples))
                .transpose()?,
            batch_size: number("data.batch_size", self.batch_size)?,
            image_size: number("data.image_size", self.image_size)?,
            augment: self.augment.map(AugmentConfig::into_core),
            captions: self
                .captions
                .into_iter()
                .map(CaptionConfig::into_core)
                .collect(),
            mask: self.mask.map(MaskConfig::into_core).transpose()?,
            seed: number("data.seed", self.seed)?,
            num_epochs: self
                .num_epochs
                .map(|epochs| number("data.num_epochs", epochs))
                .transpose()?,
            shuffle_window: number("data.shuffle_window", self.shuffle_window)?,
            last_batch: one_of(
                "data.last_batch",
                &self.last_batch,
                &[
                    ("drop", core::LastBatch::Drop),
                    ("pad", core::LastBatch::Pad),
                    ("keep", core::LastBatch::Keep),
                ],
            )?,
            num_threads: if num_threads == 0 {
                default_threads()
            } else {
                num_threads
            },
            prefetch_batches: number("data.prefetch_batches", self.prefetch_batches)?,
            max_bad_fraction: self.max_bad_fraction,
            max_pixels: number("data.max_pixels", self.max_pixels)?,
            max_member_bytes: number("data.max_member_bytes", self.max_member_bytes)?,
            max_caption_bytes: number("data.max_caption_bytes", self.max_caption_bytes)?,
            on_missing_shard: one_of(
                "data.on_missing_shard",
                &self.on_missing_shard,
                &[
                    ("raise", core::OnMissingShard::Raise),
                    ("skip", core::OnMissingShard::Skip),
                ],
            )?,
            store: self.store.into_core()?,
            keep_members: self.keep_members,
        })
    }
}

impl StoreConfig {
    /// The loader's own configuration, whose rules hold.
    pub fn into_core(self) -> Result<core::StoreConfig, ConfigError> {
        let config = core::StoreConfig {
            allow_pipe: self.allow_pipe,
            connections: number("data.store.connections", self.connections)?,
            read_ahead_bytes: number("data.store.read_ahead_bytes", self.read_ahead_bytes)?,
            cache_dir: self.cache_dir,
            cache_bytes: number("data.store.cache_bytes", self.cache_bytes)?,
            retries: number("data.store.retries", self.retries)?,
            timeout_s: self.timeout_s,
        };
        config.validate()?;
        Ok(config)
    }
}

impl AugmentConfig {
    fn into_core(self) -> core::AugmentConfig {
        core::AugmentConfig {
            crop_scale: self.crop_scale,
            crop_ratio: self.crop_ratio,
            jitter: self.jitter,
            jitter_prob: self.jitter_prob,
            gray_prob: self.gray_prob,
        }
    }
}

impl CaptionConfig {
    fn into_core(self) -> core::CaptionConfig {
        let source = |source: CaptionSource| core::CaptionSource {
            key: source.key,
            weight: source.weight,
            general: source.general,
            list_weights: source.list_weights,
            list_weights_key: source.list_weights_key,
        };
        core::CaptionConfig {
            sources: self.sources.into_iter().map(source).collect(),
        }
    }
}

impl MaskConfig {
    fn into_core(self) -> Result<core::MaskConfig, ConfigError> {
        Ok(core::MaskConfig {
            masked_fraction: self.masked_fraction,
            text_mode: one_of(
                "data.mask.text_mode",
                &self.text_mode,
                &[
                    ("replace", core::TextMode::Replace),
                    ("remove", core::TextMode::Remove),
                ],
            )?,
            text_mask_prob: self.text_mask_prob,
            mask_id: number("data.mask.mask_id", self.mask_id)?,
            patch_draw: one_of(
                "data.mask.patch_draw",
                &self.patch_draw,
                &[
                    ("batch", core::PatchDraw::Batch),
                    ("sample", core::PatchDraw::Sample),
                ],
            )?,
            keep_ratio: self.keep_ratio,
            num_patches: number("data.mask.num_patches", self.num_patches)?,
            general_prob: self.general_prob,
        })
    }
}

/// A whole number of any size, so that one out of range is refused by the name of its field.
pub struct Integer(Result<i128, String>);

impl<'py> FromPyObject<'_, 'py> for Integer {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<i128>() {
            Ok(value) => Ok(Self(Ok(value))),
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => {
                Ok(Self(Err(object.str()?.to_string())))
            }
            Err(error) => Err(error),
        }
    }
}

/// The number as the field's type holds it.
pub fn number<T: TryFrom<i128>>(field: &str, value: Integer) -> Result<T, ConfigError> {
    let text = match value.0 {
        Ok(value) => match T::try_from(value) {
            Ok(number) => return Ok(number),
            Err(_) => value.to_string(),
        },
        Err(text) => text,
    };
    let rule = if text.starts_with('-') {
        "it must not be negative"
    } else {
        "it is too large"
    };
    Err(ConfigError::new(field, text, rule))
}

fn one_of<T: Copy>(field: &str, value: &str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
    choices
        .iter()
        .find(|(name, _)| *name == value)
        .map(|&(_, choice)| choice)
        .ok_or_else(|| {
            let names: Vec<String> = choices
                .iter()
                .map(|(name, _)| format!("'{name}'"))
                .collect();
            ConfigError::new(
                field,
                format!("'{value}'"),
                format!("it must be {}", names.join(" or ")),
            )
        })
}

/// The cores that this process may use, divided among the processes that torchrun started on this machine.
fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let local = std::env::var("LOCAL_WORLD_SIZE")
        .ok()
        .and_then(|text| text.parse::<usize>().ok());
    (cores / local.unwrap_or(1).max(1)).max(1)
}
