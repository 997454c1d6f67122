//! The loader's configuration. Field names are those of the Python dataclasses in `prolip.data`.

mod rules;
mod strict;

use std::path::PathBuf;

use serde::Deserialize;

/// Largest shuffle window: its permutation is stored as 32-bit indices.
pub(crate) const MAX_WINDOW: usize = 1 << 31;

/// Default limit on the pixels of an image. PIL warns beyond it, of a possible decompression bomb.
pub const MAX_PIXELS: u64 = 89_478_485;

/// The key of a caption that comes from the member `.txt`, not from the JSON.
pub const TXT: &str = "txt";

/// Default limit on the bytes of a sample's members.
pub const MAX_MEMBER_BYTES: u64 = 256 << 20;

/// Default limit on the bytes of a caption.
pub const MAX_CAPTION_BYTES: usize = 1 << 20;

/// Random augmentation of a training image. The defaults are those of the published recipes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Smallest and largest share of the image's area that a crop covers.
    pub crop_scale: (f64, f64),
    /// Smallest and largest aspect ratio (width / height) of a crop.
    pub crop_ratio: (f64, f64),
    /// Strength of brightness, contrast, saturation and hue.
    pub jitter: [f64; 4],
    /// Probability of colour jitter.
    pub jitter_prob: f64,
    /// Probability that the image is converted to grey.
    pub gray_prob: f64,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            crop_scale: (0.8, 1.0),
            crop_ratio: (3.0 / 4.0, 4.0 / 3.0),
            jitter: [0.32, 0.32, 0.32, 0.08],
            jitter_prob: 0.8,
            gray_prob: 0.2,
        }
    }
}

/// Where a caption comes from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionSource {
    /// `txt`, or a dotted path into the sample's JSON. From a list, one element is drawn. After a list, a name (or `*` and
    /// a name) is looked up in each element, and a number selects one element.
    pub key: String,
    /// How often this source is drawn, relative to the other sources.
    pub weight: f32,
    /// Dotted paths of more general captions of the same sample. One is drawn uniformly.
    #[serde(deserialize_with = "strict::texts")]
    pub general: Vec<String>,
    /// Weights of a list's elements, by position. Elements after the last weight are never drawn. Empty: all are equally
    /// likely.
    pub list_weights: Vec<f32>,
    /// Dotted path, in the same JSON, to the weights of the elements.
    pub list_weights_key: Option<String>,
}

/// One caption slot. Every sample has one caption per slot.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionConfig {
    /// The sources. One is drawn, by weight.
    pub sources: Vec<CaptionSource>,
}

/// What happens to the tokens of a masked text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextMode {
    /// A masked token becomes the mask id.
    Replace,
    /// A masked token is removed, and the rest moves left.
    Remove,
}

/// Which rows share a set of kept patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PatchDraw {
    /// One set for all masked rows of a batch.
    Batch,
    /// One set for each masked row.
    Sample,
}

/// Masked rows of a batch (docs/specification.md, section 7).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskConfig {
    /// Share of a batch's rows with masked texts and images. They are the first rows. With [`LastBatch::Keep`] a small last
    /// batch may have none.
    pub masked_fraction: f64,
    /// What happens to masked tokens.
    pub text_mode: TextMode,
    /// Probability that a token is masked.
    pub text_mask_prob: f64,
    /// The id that replaces masked tokens.
    pub mask_id: i32,
    /// Which rows share a set of kept patches.
    pub patch_draw: PatchDraw,
    /// Share of patches to keep.
    pub keep_ratio: f64,
    /// Number of patches of an image.
    pub num_patches: usize,
    /// Probability that a more general caption replaces the masked text, if the drawn source has any.
    pub general_prob: f64,
}

impl MaskConfig {
    /// Masked rows of a batch of `rows`: rows · `masked_fraction`, rounded down.
    #[must_use]
    pub fn masked_rows(&self, rows: usize) -> usize {
        (rows as f64 * self.masked_fraction) as usize
    }

    /// Patches that a masked image keeps: `num_patches` · `keep_ratio`, rounded down.
    #[must_use]
    pub fn kept_patches(&self) -> usize {
        (self.num_patches as f64 * self.keep_ratio) as usize
    }
}

/// Which samples make an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every sample of every shard once.
    Once,
    /// Shards drawn with replacement, by the weight of their pattern.
    Resampled,
}

/// What happens if a shard is missing, when the loader opens or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissingShard {
    /// An error that names the shard.
    Raise,
    /// At opening, the shard is left out. Later, its samples are bad samples.
    Skip,
}

/// How remote and compressed shards are fetched.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Whether `pipe:COMMAND` runs commands.
    #[serde(deserialize_with = "strict::boolean")]
    pub allow_pipe: bool,
    /// Ranges to fetch at the same time.
    pub connections: usize,
    /// Disk limit for prefetched shards, in bytes.
    pub read_ahead_bytes: u64,
    /// Most bytes of one shard, as sent and as unpacked.
    pub max_shard_bytes: u64,
    /// Folder for fetched bytes. `None`: the system's temporary folder.
    pub cache_dir: Option<PathBuf>,
    /// Limit of the cache of whole shards in that folder, in bytes. All processes that name the folder share it. 0: no cache.
    pub cache_bytes: u64,
    /// How often a failed request is retried. The count starts again after 256 KiB of new data.
    pub retries: u32,
    /// Seconds without a byte after which a request has failed.
    pub timeout_s: f64,
    /// Fewest bytes per second, on average over `timeout_s`, below which a request has failed.
    pub min_bytes_per_s: u64,
    /// Whether archives, local ones too, must end with a block of zeros. An archive without one counts as damaged there.
    #[serde(deserialize_with = "strict::boolean")]
    pub require_archive_end: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            allow_pipe: false,
            connections: 8,
            read_ahead_bytes: 4 << 30,
            max_shard_bytes: 32 << 30,
            cache_dir: None,
            cache_bytes: 0,
            retries: 10,
            timeout_s: 30.0,
            min_bytes_per_s: 1024,
            require_archive_end: true,
        }
    }
}

/// What happens to the samples of an incomplete last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    /// Training: they are left out. Every batch is full, and every rank has the same number of batches.
    Drop,
    /// Training: the batch is filled with samples from the start of the rank's epoch. Every rank has the same number of batches.
    Pad,
    /// Evaluation: each rank reads one contiguous part, and its last batch is smaller. Ranks may differ by one batch, so there
    /// must be no collective operation per batch.
    Keep,
}

/// All settings of a loader except its rank.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    /// Paths, addresses, brace patterns, globs, or text files that list them.
    #[serde(deserialize_with = "strict::texts")]
    pub shards: Vec<String>,
    /// With [`Mode::Resampled`], one weight per pattern: how often each of its shards is drawn, relative to the shards of the
    /// other patterns. Empty: all shards are equally likely.
    pub weights: Vec<f64>,
    /// Index file of the shards, made by `prolip data index`.
    pub index: Option<String>,
    /// Which samples make an epoch.
    pub mode: Mode,
    /// Samples per epoch over all ranks, for shards that are resampled or of unknown length.
    pub num_samples: Option<u64>,
    /// Samples in one rank's batch.
    pub batch_size: usize,
    /// Side of an image in the batch, in pixels. 0: images are not decoded.
    pub image_size: u32,
    /// Random augmentation. `None`: the evaluation transform.
    pub augment: Option<AugmentConfig>,
    /// One entry per caption slot. Empty: no text is read.
    pub captions: Vec<CaptionConfig>,
    /// Masked rows. `None`: nothing is masked.
    pub mask: Option<MaskConfig>,
    /// Seed of all random draws.
    pub seed: u64,
    /// Number of epochs. `None`: endless.
    pub num_epochs: Option<u64>,
    /// Number of samples that are shuffled together. 0: the order of the files.
    pub shuffle_window: usize,
    /// What happens to the samples of an incomplete last batch.
    pub last_batch: LastBatch,
    /// Number of threads, at least 1.
    pub num_threads: usize,
    /// Batches prepared ahead of the reader, finished or not.
    pub prefetch_batches: usize,
    /// Largest share of bad samples. Beyond it the loader fails: at the end of an epoch that the run began, or earlier if chance
    /// cannot explain their number.
    pub max_bad_fraction: f64,
    /// Largest number of pixels of an image before resizing.
    pub max_pixels: u64,
    /// Largest total size of a sample's members, in bytes.
    pub max_member_bytes: u64,
    /// Largest size of a caption, in bytes.
    pub max_caption_bytes: usize,
    /// What happens if a shard is missing.
    pub on_missing_shard: OnMissingShard,
    /// How remote and compressed shards are fetched.
    pub store: StoreConfig,
    /// Extensions, in lower case, of members that are returned raw with each batch.
    #[serde(deserialize_with = "strict::texts")]
    pub keep_members: Vec<String>,
}
