//! The loader's configuration and its rules. Field names equal those of the Python dataclasses in `prolip.data`.

mod rules;

use std::path::PathBuf;

use serde::Deserialize;

/// A window's permutation is held as 32-bit indices.
pub const MAX_WINDOW: usize = 1 << 31;

/// Pixels of a picture past which PIL calls it a decompression bomb and raises.
pub const MAX_PIXELS: u64 = 178_956_970;

/// The key of a caption that is the member `.txt` and not in the json.
pub const TXT: &str = "txt";

/// Bytes of a sample, at most, unless the configuration says otherwise.
pub const MAX_MEMBER_BYTES: u64 = 256 << 20;

/// Bytes of a caption, at most, unless the configuration says otherwise.
pub const MAX_CAPTION_BYTES: usize = 1 << 20;

/// How a training picture is varied; the defaults are those of the published recipes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Share of the picture's area that a crop covers, lowest and highest.
    pub crop_scale: (f64, f64),
    /// Width over height of a crop, lowest and highest.
    pub crop_ratio: (f64, f64),
    /// Strength of brightness, contrast, saturation and hue.
    pub jitter: [f64; 4],
    /// Probability of colour jitter.
    pub jitter_prob: f64,
    /// Probability of grey.
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
    /// `txt`, or a dotted path into the sample's json. Of a list one element is drawn; a name behind it, or `*` and a
    /// name, is a name in each of its elements, a number the place of one.
    pub key: String,
    /// How often this source is drawn, relative to its neighbours.
    pub weight: f32,
    /// Dotted paths of more general captions of the same sample, one drawn uniformly.
    pub general: Vec<String>,
    /// How often each element of a list is drawn, by its place, those behind the last weight never; empty for equally
    /// often.
    pub list_weights: Vec<f32>,
    /// Dotted path to the elements' weights in the same json.
    pub list_weights_key: Option<String>,
}

/// One caption slot: every sample gives one caption to each slot.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionConfig {
    /// The sources, of which one is drawn by weight.
    pub sources: Vec<CaptionSource>,
}

/// What happens to the tokens of a masked text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextMode {
    /// A masked token becomes the mask id.
    Replace,
    /// A masked token is taken out and the rest moves left.
    Remove,
}

/// For whom one set of kept patches is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PatchDraw {
    /// One set for all masked rows of a batch.
    Batch,
    /// A set of its own for each masked row.
    Sample,
}

/// Masked rows of a batch (SPEC §7).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskConfig {
    /// Share of a batch's rows, from the first on, that have masked texts and pictures. With [`LastBatch::Keep`] a small
    /// last batch may have none.
    pub masked_fraction: f64,
    /// What happens to masked tokens.
    pub text_mode: TextMode,
    /// Probability that a token is masked.
    pub text_mask_prob: f64,
    /// The id that replaces masked tokens.
    pub mask_id: i32,
    /// For whom kept patches are drawn.
    pub patch_draw: PatchDraw,
    /// Share of patches that are kept.
    pub keep_ratio: f64,
    /// Patches of a picture.
    pub num_patches: usize,
    /// Probability that the masked text is a more general caption, where the drawn source names any.
    pub general_prob: f64,
}

impl MaskConfig {
    /// Masked rows of a batch of `rows`: the whole part of rows · `masked_fraction`.
    #[must_use]
    pub fn masked_rows(&self, rows: usize) -> usize {
        (rows as f64 * self.masked_fraction) as usize
    }

    /// Patches that a masked picture keeps: the whole part of `num_patches` · `keep_ratio`.
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
    /// Shards drawn with replacement, by the weight of the pattern that names them.
    Resampled,
}

/// What happens when a shard cannot be opened, or is not there any more when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissingShard {
    /// An error that names it.
    Raise,
    /// At opening it is left out; later its samples are bad samples.
    Skip,
}

/// How shards that are no plain local files are read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Whether `pipe:COMMAND` runs commands.
    pub allow_pipe: bool,
    /// Ranges that are fetched at the same time.
    pub connections: usize,
    /// Bytes on the disk that may be fetched ahead of their use.
    pub read_ahead_bytes: u64,
    /// Folder of the fetched bytes; `None` for one of the system's temporary folder.
    pub cache_dir: Option<PathBuf>,
    /// Bytes of whole shards that are kept there after their use, for every process that names the folder; 0 keeps none.
    pub cache_bytes: u64,
    /// Times that a broken or refused request is tried again.
    pub retries: u32,
    /// Seconds without a byte after which a request counts as broken.
    pub timeout_s: f64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            allow_pipe: false,
            connections: 8,
            read_ahead_bytes: 4 << 30,
            cache_dir: None,
            cache_bytes: 0,
            retries: 10,
            timeout_s: 30.0,
        }
    }
}

/// What becomes of the samples that do not fill a last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    /// Training: left out, so that every batch is full and every rank has the same number of them.
    Drop,
    /// Training: filled with samples from the beginning of the rank's epoch; as many batches on every rank.
    Pad,
    /// Evaluation: each rank reads one contiguous part, and its last batch is smaller. Ranks may differ by one batch, so
    /// nothing that all ranks must take part in may happen once a batch.
    Keep,
}

/// Everything a loader is told, except its rank.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    /// Brace patterns, globs, paths, or text files that list them.
    pub shards: Vec<String>,
    /// With [`Mode::Resampled`], how often a shard of each pattern is drawn, relative to a shard of the others; empty for
    /// equally often.
    pub weights: Vec<f64>,
    /// File of an index of the shards, made by `prolip data index`.
    pub index: Option<String>,
    /// Which samples make an epoch.
    pub mode: Mode,
    /// Samples of an epoch over all ranks, where the shards do not say: they are resampled, or of unknown length.
    pub num_samples: Option<u64>,
    /// Samples in one rank's batch.
    pub batch_size: usize,
    /// Side of a picture in the batch; with 0 none is decoded.
    pub image_size: u32,
    /// Random augmentation; `None` is the evaluation transform.
    pub augment: Option<AugmentConfig>,
    /// One entry a caption slot; none means that no text is read.
    pub captions: Vec<CaptionConfig>,
    /// Masked rows; `None` for none.
    pub mask: Option<MaskConfig>,
    /// Seed of every draw.
    pub seed: u64,
    /// Epochs, `None` for no end.
    pub num_epochs: Option<u64>,
    /// Samples that are shuffled together; 0 keeps the order of the files.
    pub shuffle_window: usize,
    /// What becomes of the samples that do not fill a last batch.
    pub last_batch: LastBatch,
    /// Threads, at least 1.
    pub num_threads: usize,
    /// Batches that may be begun or wait before the reader takes them.
    pub prefetch_batches: usize,
    /// Share of unreadable samples past which the loader fails: with an epoch's last batch, and before it where there are
    /// more than chance explains.
    pub max_bad_fraction: f64,
    /// Pixels of a picture before it is resized, at most.
    pub max_pixels: u64,
    /// Bytes of a sample's members together, at most.
    pub max_member_bytes: u64,
    /// Bytes of a caption, at most.
    pub max_caption_bytes: usize,
    /// What happens when a shard cannot be opened.
    pub on_missing_shard: OnMissingShard,
    /// How shards that are no plain local files are read.
    pub store: StoreConfig,
    /// Extensions, in lower case, of members that are handed on with a batch as they are.
    pub keep_members: Vec<String>,
}
