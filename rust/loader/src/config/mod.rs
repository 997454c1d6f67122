//! The loader's configuration. `python/prolip/data/config.py` documents the fields, which have the same names.

mod rules;
mod strict;

use std::path::PathBuf;

pub use prolip_image::MAX_PIXELS;
use prolip_image::{Fit, Form};
use serde::Deserialize;

/// Its permutation is stored as 32-bit indices.
pub(crate) const MAX_WINDOW: usize = 1 << 31;

/// In patches, whose coordinates are 16-bit numbers.
pub(crate) const MAX_SEQ_LEN: u32 = 32_768;

/// The key of a caption that comes from the member `.txt`, not from the JSON.
pub const TXT: &str = "txt";

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    pub crop_scale: (f64, f64),
    pub crop_ratio: (f64, f64),
    pub jitter: [f64; 4],
    pub jitter_prob: f64,
    pub gray_prob: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionSource {
    pub key: String,
    pub weight: f32,
    #[serde(deserialize_with = "strict::texts")]
    pub general: Vec<String>,
    pub list_weights: Vec<f32>,
    pub list_weights_key: Option<String>,
}

/// Every sample has one caption per slot.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionConfig {
    pub sources: Vec<CaptionSource>,
}

/// What happens to the tokens of a masked text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextMode {
    Replace,
    Remove,
}

/// Which rows share a set of kept patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PatchDraw {
    Batch,
    Sample,
}

/// Masked rows of a batch (docs/specification.md, section 7).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskConfig {
    pub masked_fraction: f64,
    pub text_mode: TextMode,
    pub text_mask_prob: f64,
    pub mask_id: i32,
    pub patch_draw: PatchDraw,
    pub keep_ratio: f64,
    pub num_patches: usize,
    pub general_prob: f64,
}

impl MaskConfig {
    pub fn masked_rows(&self, rows: usize) -> usize {
        (rows as f64 * self.masked_fraction) as usize
    }

    pub fn kept_patches(&self, num_patches: usize) -> usize {
        (num_patches as f64 * self.keep_ratio) as usize
    }
}

/// Images at their native aspect ratio, cut into patches.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativeConfig {
    pub patch_size: u32,
    pub seq_lens: Vec<u32>,
    pub seq_len_probs: Vec<f64>,
    pub token_budget: u64,
    pub batch_divisor: u64,
}

impl NativeConfig {
    pub fn longest(&self) -> u32 {
        self.seq_lens.iter().copied().max().unwrap_or(1)
    }

    /// Samples of a rank in a step with this sequence length.
    pub fn rows(&self, seq_len: u32) -> u64 {
        self.token_budget / u64::from(seq_len) / self.batch_divisor * self.batch_divisor
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Once,
    Resampled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissingShard {
    Raise,
    Skip,
}

/// How remote and compressed shards are fetched.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    #[serde(deserialize_with = "strict::boolean")]
    pub allow_pipe: bool,
    pub connections: usize,
    pub read_ahead_bytes: u64,
    pub max_shard_bytes: u64,
    pub cache_dir: Option<PathBuf>,
    pub cache_bytes: u64,
    pub retries: u32,
    pub timeout_s: f64,
    pub min_bytes_per_s: u64,
    #[serde(deserialize_with = "strict::boolean")]
    pub require_archive_end: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    Drop,
    Pad,
    Keep,
}

/// Everything but the rank.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    #[serde(deserialize_with = "strict::texts")]
    pub shards: Vec<String>,
    pub weights: Vec<f64>,
    pub index: Option<String>,
    pub selection: Option<String>,
    pub mode: Mode,
    pub num_samples: Option<u64>,
    pub batch_size: usize,
    /// Height and width; 0 and 0 decode no image.
    #[serde(deserialize_with = "strict::sides")]
    pub image_size: [u32; 2],
    pub fit: Fit,
    pub native: Option<NativeConfig>,
    pub augment: Option<AugmentConfig>,
    pub captions: Vec<CaptionConfig>,
    pub mask: Option<MaskConfig>,
    pub seed: u64,
    pub num_epochs: Option<u64>,
    pub shuffle_window: usize,
    pub last_batch: LastBatch,
    pub num_threads: usize,
    pub prefetch_batches: usize,
    pub max_bad_fraction: f64,
    pub max_pixels: u64,
    pub max_member_bytes: u64,
    pub max_caption_bytes: usize,
    pub on_missing_shard: OnMissingShard,
    pub store: StoreConfig,
    #[serde(deserialize_with = "strict::texts")]
    pub keep_members: Vec<String>,
}

impl LoaderConfig {
    pub fn form(&self) -> Form {
        let native = self.native.as_ref();
        native.map_or(Form::Fixed(self.image_size), |native| Form::Native(native.patch_size))
    }
}
