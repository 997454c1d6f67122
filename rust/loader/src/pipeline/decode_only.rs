//! The benchmark's floor: decode the same images with as many threads, and do nothing else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::bad_samples::BadSamples;
use prolip_image::{Decoder, Rgb8};

use crate::archive::index::{Index, OpenOptions};
use crate::archive::{RawMembers, Reader, WantedMembers};
use crate::config::{OnMissingShard, StoreConfig};
use crate::error::{ConfigError, Error};
use crate::order::ShardList;
use crate::shards::Location;

#[derive(Debug, Clone, Copy, Default)]
pub struct DecodeOnly {
    pub images: u64,
    /// Seconds from the start of the first image to the end of the last.
    pub seconds: f64,
}

/// Decodes `images` images with `threads` threads, spread evenly over the samples, repeated if there are fewer.
///
/// The compressed bytes are in memory before the clock starts. Samples that cannot be read or decoded are skipped beforehand.
/// Then `loaded` is called, where a caller may start to measure as well.
pub fn decode_only(
    shards: &[Location],
    images: usize,
    threads: usize,
    max_pixels: u64,
    store: &StoreConfig,
    loaded: impl FnOnce(),
) -> Result<DecodeOnly, Error> {
    let opening = OpenOptions {
        missing: OnMissingShard::Raise,
        threads,
        store,
        cancelled: &AtomicBool::new(false),
        chosen: &[],
    };
    let index = Index::scan(shards, opening)?;
    if !index.is_complete() {
        let rule = "they must be local: downloads would be timed";
        return Err(ConfigError::new("shards", "remote ones", rule).into());
    }
    let encoded = load(&index, images, max_pixels)?;
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut decoder, mut pixels) = (Decoder::of_libraries(max_pixels), Rgb8::default());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= images {
                break;
            }
            // They were decoded once before, so this cannot fail.
            drop(decoder.decode(&encoded[number % encoded.len()], &mut pixels));
        }
    };
    loaded();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let seconds = begun.elapsed().as_secs_f64();
    Ok(DecodeOnly { images: images as u64, seconds })
}

fn load(index: &Index, images: usize, max_pixels: u64) -> Result<Vec<Vec<u8>>, Error> {
    let total = index.num_samples();
    let wanted = (images as u64).min(total);
    let (mut reader, mut decoder, mut pixels) =
        (Reader::default(), Decoder::of_libraries(max_pixels), Rgb8::default());
    let mut encoded = Vec::with_capacity(wanted as usize);
    let mut bad_samples = BadSamples::default();
    let list = ShardList::once(index.counts(), None);
    let mut ids = Vec::with_capacity(wanted as usize);
    for number in 0..wanted {
        let position = number * total / wanted;
        list.append_to(&mut ids, position..position + 1);
    }
    for id in ids {
        bad_samples.tried += 1;
        let read = reader
            .read(index, None, id, WantedMembers::default(), u64::MAX, &mut RawMembers::default())
            .and_then(|members| {
                decoder.decode(members.image, &mut pixels)?;
                Ok(members.image.to_vec())
            });
        match read {
            Ok(image) => encoded.push(image),
            Err(error) => {
                let shard = &index.shards()[id.shard as usize].location;
                bad_samples.record(shard, reader.key().to_owned(), &error);
            }
        }
    }
    if encoded.is_empty() {
        return Err(bad_samples.too_many(1.0));
    }
    Ok(encoded)
}
