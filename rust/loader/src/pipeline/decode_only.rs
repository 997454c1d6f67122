//! The floor that the loader is measured against: the same pictures decoded by as many threads, and nothing else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::bad_samples::Tally;
use crate::archive::index::{Index, Opening};
use crate::archive::{RawMembers, Reader, Wanted};
use crate::config::{MAX_MEMBER_BYTES, OnMissingShard, StoreConfig};
use crate::error::{ConfigError, Error};
use crate::image::{Decoder, Rgb8};
use crate::order::ShardList;
use crate::remote::LocalFiles;
use crate::shards::Location;

/// What a decode-only run did.
#[derive(Debug, Clone, Copy, Default)]
pub struct DecodeOnly {
    /// Pictures that were decoded.
    pub images: u64,
    /// Seconds from the first picture's beginning to the last one's end.
    pub seconds: f64,
}

/// Decodes `images` pictures of the shards, evenly spaced among the samples (or all of them over and over, where
/// they are fewer), with `threads` threads that each take the next one.
///
/// Their bytes are in memory before the clock starts: neither the archives nor the disk are part of the time.
/// Samples whose picture cannot be read or decoded are left out beforehand.
///
/// # Errors
/// A shard cannot be opened or is damaged, or no picture can be decoded.
pub fn decode_only(
    shards: &[Location],
    images: usize,
    threads: usize,
    max_pixels: u64,
) -> Result<DecodeOnly, Error> {
    let opening = Opening {
        missing: OnMissingShard::Raise,
        threads,
        store: &StoreConfig::default(),
        cancelled: &AtomicBool::new(false),
    };
    let index = Index::scan(shards, opening)?;
    if !index.is_complete() {
        let rule = "they must be local: what is brought here first would be part of the time";
        return Err(ConfigError::new("shards", "remote ones", rule).into());
    }
    let pictures = load(&index, images, max_pixels)?;
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut decoder, mut pixels) = (Decoder::of_libraries(max_pixels), Rgb8::default());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= images {
                break;
            }
            // Every one of them was decoded once before, so there is no error to look at.
            drop(decoder.decode(&pictures[number % pictures.len()], &mut pixels));
        }
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let seconds = begun.elapsed().as_secs_f64();
    Ok(DecodeOnly {
        images: images as u64,
        seconds,
    })
}

/// The compressed pictures of at most `images` samples that can be decoded.
fn load(index: &Index, images: usize, max_pixels: u64) -> Result<Vec<Vec<u8>>, Error> {
    let total = index.num_samples();
    let wanted = (images as u64).min(total);
    let (mut reader, mut decoder, mut pixels) = (
        Reader::default(),
        Decoder::of_libraries(max_pixels),
        Rgb8::default(),
    );
    let mut pictures = Vec::with_capacity(wanted as usize);
    let mut tally = Tally::default();
    let list = ShardList::once(index.counts(), None);
    let mut ids = Vec::with_capacity(wanted as usize);
    for number in 0..wanted {
        let position = number * total / wanted;
        list.read(position..position + 1, &mut ids);
    }
    for id in ids {
        tally.tried += 1;
        let read = reader
            .read(
                index,
                &LocalFiles,
                id,
                Wanted::default(),
                MAX_MEMBER_BYTES,
                &mut RawMembers::default(),
            )
            .and_then(|members| {
                decoder.decode(members.image, &mut pixels)?;
                Ok(members.image.to_vec())
            });
        match read {
            Ok(picture) => pictures.push(picture),
            Err(error) => {
                let shard = &index.shards()[id.shard as usize].location;
                tally.bad(
                    format_args!("shard {shard}, sample {}", reader.key()),
                    &error,
                );
            }
        }
    }
    if pictures.is_empty() {
        return Err(tally.too_many(1.0));
    }
    Ok(pictures)
}
