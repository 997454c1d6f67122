//! Tar archives, intact and damaged.

use crate::common::{archive, entry, header, member, seal};
use prolip_loader::archive::tar::{Damage, FileSource, Part, Scratch};
use prolip_loader::archive::{Sample, Scan, read_sample_headers, scan};
use prolip_loader::error::{Reason, SampleError, TarError};
use prolip_loader::shards::Regions;
use proptest::prelude::*;

fn part(bytes: &[u8]) -> Part<'_> {
    Part { bytes, start: 0, size: bytes.len() as u64 }
}

fn read_all(bytes: &[u8], regions: &Regions) -> Vec<Result<Sample, SampleError>> {
    let read = |number| {
        let region = regions.get(number).unwrap();
        let length = bytes.len() as u64;
        let (from, end) = (region.start.min(length), region.end.min(length));
        let mine = Part {
            bytes: &bytes[from as usize..end as usize],
            start: region.start,
            size: bytes.len() as u64,
        };
        let mut sample = Sample::default();
        sample.clear();
        read_sample_headers(mine, region.start, &mut Scratch::default(), &mut sample)
            .map(|()| sample)
    };
    (0..regions.len() as u32).map(read).collect()
}

/// Scans a shard from a file and from memory, which must give the same.
fn scan_all(bytes: &[u8]) -> Result<Scan, Damage> {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    let file = scan(FileSource::new(&file).unwrap(), true);
    let memory = scan(part(bytes), true);
    let place = |damage: &Damage| (damage.header, damage.at, std::mem::discriminant(&damage.error));
    match (&file, &memory) {
        (Ok(file), Ok(memory)) => {
            assert_eq!(file.regions, memory.regions);
            assert_eq!(file.damage.as_ref().map(place), memory.damage.as_ref().map(place));
        }
        (Err(file), Err(memory)) => assert_eq!(place(file), place(memory)),
        other => panic!("{other:?}"),
    }
    file
}

/// The samples of a shard without damage.
fn read(bytes: &[u8]) -> Vec<Sample> {
    let scan = scan_all(bytes).unwrap();
    assert!(scan.damage.is_none(), "{scan:?}");
    let samples = read_all(bytes, &scan.regions);
    samples.into_iter().map(Result::unwrap).collect()
}

/// What is wrong with a shard, at its first header or later. The samples before are good, and reading the last region gives the
/// same error.
fn fault(bytes: &[u8]) -> (u64, TarError) {
    match scan_all(bytes) {
        Err(damage) => (damage.at, damage.error),
        Ok(scan) => {
            let damage = scan.damage.unwrap();
            let mut samples = read_all(bytes, &scan.regions);
            let last = samples.pop().unwrap().unwrap_err();
            assert_eq!(last.reason(), Reason::Archive);
            assert_eq!(last.to_string(), damage.error.to_string());
            assert!(samples.iter().all(Result::is_ok), "{samples:?}");
            (damage.at, damage.error)
        }
    }
}

#[test]
fn long_names_and_large_numbers_are_read() {
    let long = format!("{}/image.png", "folder".repeat(40));
    let key = long.trim_end_matches(".png").to_owned();
    let gnu = [entry(b"././@LongLink", b'L', format!("{long}\0").as_bytes()), member("cut", b"P")]
        .concat();
    let record = |text: String| {
        let length = (0..).find(|length| format!("{length} {text}\n").len() == *length).unwrap();
        format!("{length} {text}\n")
    };
    let records = format!("{}{}", record(format!("path={long}")), record("size=1".to_owned()));
    let mut data = header(b"cut", b'0', 0);
    data.extend_from_slice(b"P");
    data.resize(1024, 0);
    let pax = [entry(b"PaxHeaders/x", b'x', records.as_bytes()), data].concat();
    let mut prefixed = member("image.png", b"P");
    prefixed[345..351].copy_from_slice(b"folder");
    seal(&mut prefixed[..512]);
    let mut binary = member("image.png", b"P");
    binary[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    seal(&mut binary[..512]);
    for (part, key) in [(gnu, &*key), (pax, &*key), (prefixed, "folder/image"), (binary, "image")] {
        let samples = read(&archive(&[part, member("next.png", b"N")]));
        assert_eq!(samples[0].key(), key);
        assert_eq!(samples[0].image.unwrap().size, 1);
        assert_eq!(samples[1].key(), "next");
    }
}

/// After a cut between two members, only the end is missing.
#[test]
fn an_archive_without_an_end_is_damaged_unless_allowed() {
    let whole = archive(&[member("a.png", b"P"), member("b.png", b"Q")]);
    // Cut after a member, and in the padding of the last one, which tarfile does not need.
    for length in [1024, 2048, 1024 + 513] {
        let cut = &whole[..length];
        let place = length.next_multiple_of(512) as u64;
        match fault(cut) {
            (offset, TarError::NoEnd(at)) => assert_eq!((offset, at), (place, place)),
            other => panic!("{length}: {other:?}"),
        }
        let lenient = scan(part(cut), false).unwrap();
        assert!(lenient.damage.is_none());
        let samples = read_all(cut, &lenient.regions);
        assert_eq!(samples.len(), length.div_ceil(1024));
        assert!(samples.iter().all(Result::is_ok), "{samples:?}");
    }
    // A cut within the block of zeros.
    assert!(matches!(fault(&whole[..2048 + 500]), (2048, TarError::Truncated { .. })));
}

#[test]
fn damage_is_reported_with_its_offset() {
    let whole = archive(&[member("a.png", b"P"), member("b.png", &[1; 2000])]);
    assert!(matches!(fault(b""), (0, TarError::Empty)));
    assert!(matches!(fault(&whole[..1024 + 100]), (1024, TarError::Truncated { .. })));
    assert!(matches!(fault(&whole[..1024 + 512 + 1999]), (1024, TarError::Truncated { .. })));
    let mut damaged = whole.clone();
    damaged[1024] ^= 1;
    assert!(matches!(fault(&damaged), (1024, TarError::Checksum { .. })));
    let mut number = whole.clone();
    number[1024 + 124] = b'9';
    seal(&mut number[1024..1536]);
    assert!(matches!(fault(&number), (1024, TarError::Header(_))));
    assert!(matches!(
        fault(&[b"\x1f\x8b\x08".as_slice(), &[7; 600]].concat()),
        (0, TarError::Compressed("gzip"))
    ));
    let terabytes = archive(&[header(b"a.png", b'0', 1 << 32)]);
    assert!(matches!(fault(&terabytes), (0, TarError::Truncated { .. })));
    let long = archive(&[entry(b"x", b'L', &vec![b'a'; (1 << 20) + 1])]);
    assert!(matches!(fault(&long), (0, TarError::Header(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_archives_do_not_panic(place in 0usize..4096, byte in any::<u8>(), length in 0usize..4096) {
        let mut bytes = archive(&[
            entry(b"x", b'x', b"15 path=a.png\n"),
            member("a", b"P"),
            entry(b"././@LongLink", b'L', b"b.png\0"),
            member("b", b"P"),
        ]);
        let place = place % bytes.len();
        bytes[place] = byte;
        bytes.truncate(length.max(1));
        if let Ok(scan) = scan_all(&bytes) {
            let samples = read_all(&bytes, &scan.regions);
            prop_assert_eq!(samples.iter().filter(|sample| sample.is_err()).count(), usize::from(scan.damage.is_some()));
        }
    }
}
