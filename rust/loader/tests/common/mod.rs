//! Archives, images and loaders for the tests.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prolip_loader::archive::RawMembers;
use prolip_loader::config::{
    AugmentConfig, CaptionConfig, CaptionSource, LastBatch, LoaderConfig, MaskConfig, Mode,
    OnMissingShard, PatchDraw, StoreConfig, TextMode,
};
use prolip_loader::error::{Error, TokenizeError};
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::{Batch, Dataset, Next, Pipeline, Selection};
use prolip_loader::text::tokenize::{Clean, CleanText, Cleaning, Tokenizer};

/// A header of 512 bytes with its checksum.
pub fn header(name: &[u8], kind: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    let length = name.len().min(100);
    block[..length].copy_from_slice(&name[..length]);
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

/// Writes the checksum of a header that was changed.
pub fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
    entry(name.as_bytes(), b'0', bytes)
}

/// A header of any kind with its bytes, padded to whole blocks.
pub fn entry(name: &[u8], kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = header(name, kind, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

pub fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub fn png(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let pixels: Vec<u8> =
        colour.iter().copied().cycle().take((width * height * 3) as usize).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    bytes
}

/// Image, caption and json of a sample.
pub fn sample(key: &str, colour: [u8; 3]) -> Vec<u8> {
    let json = format!(r#"{{"name": "cat {key}", "levels": {{"group": ["the", "a cat"]}}}}"#);
    [
        member(&format!("{key}.png"), &png(12, 10, colour)),
        member(&format!("{key}.txt"), format!("the cat {key}").as_bytes()),
        member(&format!("{key}.json"), json.as_bytes()),
    ]
    .concat()
}

/// Writes shards with these numbers of samples. A sample's colour and key identify it.
pub fn write_shards(folder: &Path, sizes: &[usize]) {
    for (shard, &size) in sizes.iter().enumerate() {
        let samples: Vec<Vec<u8>> = (0..size)
            .map(|index| {
                sample(&format!("s{shard}-{index}"), [(shard * 20) as u8, (index * 5) as u8, 7])
            })
            .collect();
        std::fs::write(folder.join(format!("{shard:03}.tar")), archive(&samples)).unwrap();
    }
}

pub const AUGMENT: AugmentConfig = AugmentConfig {
    crop_scale: (0.8, 1.0),
    crop_ratio: (0.75, 4.0 / 3.0),
    jitter: [0.32, 0.32, 0.32, 0.08],
    jitter_prob: 0.8,
    gray_prob: 0.2,
};

pub const STORE: StoreConfig = StoreConfig {
    allow_pipe: false,
    connections: 3,
    read_ahead_bytes: 1 << 30,
    max_shard_bytes: 1 << 30,
    cache_dir: None,
    cache_bytes: 0,
    retries: 4,
    timeout_s: 2.0,
    min_bytes_per_s: 1024,
    require_archive_end: true,
};

/// A configuration for the shards of a folder, with two captions and masks.
pub fn config(folder: &Path) -> LoaderConfig {
    let source = |key: &str, general: &[&str]| CaptionSource {
        key: key.to_owned(),
        weight: 1.0,
        general: general.iter().map(|&key| key.to_owned()).collect(),
        list_weights: Vec::new(),
        list_weights_key: None,
    };
    LoaderConfig {
        shards: vec![folder.join("*.tar").to_str().unwrap().to_owned()],
        weights: Vec::new(),
        index: None,
        selection: None,
        mode: Mode::Once,
        num_samples: None,
        batch_size: 4,
        image_size: [8; 2],
        fit: Default::default(),
        native: None,
        augment: Some(AUGMENT),
        captions: vec![
            CaptionConfig { sources: vec![source("txt", &["levels.group"])] },
            CaptionConfig { sources: vec![source("name", &[]), source("levels.group", &[])] },
        ],
        mask: Some(MaskConfig {
            masked_fraction: 0.5,
            text_mode: TextMode::Replace,
            text_mask_prob: 0.5,
            mask_id: 600,
            patch_draw: PatchDraw::Sample,
            keep_ratio: 0.5,
            num_patches: 16,
            general_prob: 0.5,
        }),
        seed: 3,
        num_epochs: Some(2),
        shuffle_window: 5,
        last_batch: LastBatch::Drop,
        num_threads: 2,
        prefetch_batches: 3,
        max_bad_fraction: 0.0,
        max_pixels: 1 << 20,
        max_member_bytes: 1 << 20,
        max_caption_bytes: 1 << 20,
        on_missing_shard: OnMissingShard::Raise,
        store: STORE,
        keep_members: vec!["json".to_owned()],
    }
}

/// Panics or fails on captions that need it, and leaves the others.
pub struct Cleaner(pub fn() -> Result<(), TokenizeError>);

impl CleanText for Cleaner {
    fn clean(&self, _: &mut [String]) -> Result<(), TokenizeError> {
        (self.0)()
    }
}

pub fn tokenizer(clean: fn() -> Result<(), TokenizeError>) -> Arc<Tokenizer> {
    let merges = b"#version\nt h\nth e</w>\na b\nab ab\nc a\nca t</w>\n";
    let cleaning = Cleaning { how: Clean::Lower, cleaner: Arc::new(Cleaner(clean)) };
    Arc::new(Tokenizer::clip(merges, 12, cleaning).unwrap())
}

pub fn open(config: LoaderConfig, rank: usize, world_size: usize) -> Result<Arc<Dataset>, Error> {
    open_chosen(config, None, rank, world_size)
}

pub fn open_chosen(
    config: LoaderConfig,
    selection: Option<Selection>,
    rank: usize,
    world_size: usize,
) -> Result<Arc<Dataset>, Error> {
    let tokenizer = (!config.captions.is_empty()).then(|| tokenizer(|| Ok(())));
    Dataset::open(config, tokenizer, rank, world_size, selection, &AtomicBool::new(false))
        .map(Arc::new)
}

#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    pub keys: Vec<String>,
    pub images: Vec<u8>,
    pub token_ids: Vec<i32>,
    pub masked_token_ids: Vec<i32>,
    pub kept_patches: Vec<i64>,
    pub kept: Vec<RawMembers>,
    pub rows: Vec<u32>,
    pub cursor: Cursor,
}

impl Content {
    pub fn new(batch: &Batch, dataset: &Dataset) -> Self {
        let memory = &batch.lease.arrays;
        let pixels = batch.samples.len() * batch.row_patches * dataset.config.form().bytes();
        Self {
            keys: memory.keys.clone(),
            images: memory.images[..pixels].to_vec(),
            token_ids: memory.token_ids.clone(),
            masked_token_ids: memory.masked_token_ids.clone(),
            kept_patches: memory.kept_patches.clone(),
            kept: memory.raw_members.clone(),
            rows: memory.rows.clone(),
            cursor: batch.cursor.clone(),
        }
    }
}

/// The next batch or the end. Fails the test if neither comes within 20 seconds.
pub fn next(pipeline: &Pipeline) -> Result<Option<Batch>, Arc<Error>> {
    match pipeline.next_within(Duration::from_secs(20))? {
        Next::Batch(batch) => Ok(Some(*batch)),
        Next::End => Ok(None),
        Next::Waiting => panic!("no batch within 20 seconds"),
    }
}

pub fn read_all(dataset: &Arc<Dataset>, from: Cursor) -> Result<Vec<Content>, Arc<Error>> {
    let pipeline = Pipeline::start(Arc::clone(dataset), &from, None).unwrap();
    let mut contents = Vec::new();
    while let Some(batch) = next(&pipeline)? {
        contents.push(Content::new(&batch, dataset));
    }
    Ok(contents)
}
