//! Any bytes as an archive: headers → regions → samples.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use prolip_loader::archive::tar::{Part, Scratch};
use prolip_loader::archive::{Sample, read_sample_headers, scan};
use prolip_loader::error::TarError;

const BLOCK: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;

fuzz_target!(|bytes: &[u8]| {
    let whole = Part { bytes, start: 0, size: bytes.len() as u64 };
    let Ok(found) = scan(whole, true) else { return };
    // Whether an end is required changes nothing but the region that stands for its absence.
    let lenient = scan(whole, false).expect("a shard that is usable with an end");
    let no_end =
        matches!(&found.damage, Some(damage) if matches!(damage.error, TarError::NoEnd(_)));
    assert_eq!(lenient.regions.len() + usize::from(no_end), found.regions.len());
    let extra_extensions = ["cls", "npy", "txt"].map(str::to_owned);
    let (mut scratch, mut sample) = (Scratch::default(), Sample::with_extra(&extra_extensions));
    let mut end = 0;
    for number in 0..found.regions.len() as u32 {
        let region = found.regions.get(number).expect("within the shard");
        assert!(region.start >= end && region.start < region.end, "regions overlap");
        end = region.end;
        let (start, stop) =
            ((region.start as usize).min(bytes.len()), (region.end as usize).min(bytes.len()));
        let part = Part { bytes: &bytes[start..stop], start: region.start, size: stop as u64 };
        sample.clear();
        if read_sample_headers(part, region.start, &mut scratch, &mut sample).is_err() {
            // Only what is known to be damaged cannot be read.
            assert!(found.damage.is_some() && number + 1 == found.regions.len() as u32);
            continue;
        }
        assert!(!sample.key().is_empty());
        assert_eq!(sample.extra[2], sample.txt, "one member, two places");
        for span in [sample.image, sample.txt, sample.json]
            .into_iter()
            .chain(sample.extra.iter().copied())
            .flatten()
        {
            assert!(span.offset >= region.start, "a member lies before its sample");
            assert!(span.offset + span.size <= stop as u64, "a member reaches beyond its sample");
        }
    }
});

// Mostly with checksums put right: hardly a change would pass them by chance.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if !seed.is_multiple_of(8) {
        for block in data[..size].chunks_exact_mut(BLOCK) {
            if block[CHECKSUM].iter().any(|byte| byte.is_ascii_digit()) {
                block[CHECKSUM].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
    }
    size
});
