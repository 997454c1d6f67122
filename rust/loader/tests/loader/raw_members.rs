//! Raw members are returned with the right samples, complete, and within the size limit.

use std::path::Path;

use crate::common::{archive, config, member, open, png, read_all};
use prolip_loader::config::{LastBatch, LoaderConfig};
use prolip_loader::order::Cursor;

const SAMPLES: usize = 23;

/// Members of a sample. Some are missing or empty. Every fifth sample is so large that it is read in parts.
fn members(index: usize) -> Vec<(&'static str, Vec<u8>)> {
    let filled =
        |length: usize| -> Vec<u8> { (0..length).map(|at| (at * 7 + index) as u8).collect() };
    let mut members = vec![("png", png(9, 9, [index as u8; 3]))];
    if index % 3 != 1 {
        members.push(("CLS", filled(index % 4)));
    }
    if index.is_multiple_of(2) {
        members.push(("seg.png", filled(600 + index)));
    }
    if index.is_multiple_of(5) {
        members.insert(0, ("npy", filled((1 << 20) + index)));
    }
    members.push(("other", filled(40)));
    members
}

/// Writes a shard of such samples. Those that `bad` selects have no valid image.
fn write(folder: &Path, bad: fn(usize) -> bool) {
    let samples: Vec<Vec<u8>> = (0..SAMPLES)
        .flat_map(|index| members(index).into_iter().map(move |named| (index, named)))
        .map(|(index, (extension, bytes))| {
            let spoilt = extension == "png" && bad(index);
            let bytes: &[u8] = if spoilt { b"no image" } else { &bytes };
            member(&format!("k{index}.{extension}"), bytes)
        })
        .collect();
    std::fs::write(folder.join("0.tar"), archive(&samples)).unwrap();
}

fn keeping(folder: &Path, extensions: &[&str]) -> LoaderConfig {
    LoaderConfig {
        captions: Vec::new(),
        mask: None,
        keep_members: extensions.iter().map(|&name| name.to_owned()).collect(),
        num_epochs: Some(1),
        ..config(folder)
    }
}

/// Checks that every row has the members of its key. Returns the number of rows.
fn check(config: LoaderConfig) -> usize {
    let extensions = config.keep_members.clone();
    let mut rows = 0;
    for batch in read_all(&open(config, 0, 1).unwrap(), Cursor::default()).unwrap() {
        assert_eq!(batch.kept.len(), batch.keys.len());
        for (key, kept) in batch.keys.iter().zip(&batch.kept) {
            let written = members(key[1..].parse().unwrap());
            for (place, extension) in extensions.iter().enumerate() {
                let expected = written.iter().find(|(name, _)| name.to_lowercase() == *extension);
                let expected = expected.map(|(_, bytes)| &**bytes);
                assert_eq!(kept.member(place), expected, "{key}.{extension}");
            }
            assert_eq!(kept.member(extensions.len()), None);
            rows += 1;
        }
    }
    rows
}

#[test]
fn every_sample_has_its_own_members() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), |index| index % 4 == 3);
    let all = ["cls", "png", "npy", "seg.png"];
    for num_threads in [1, 3] {
        let keep = LoaderConfig {
            num_threads,
            last_batch: LastBatch::Keep,
            max_bad_fraction: 1.0,
            ..keeping(folder.path(), &all)
        };
        assert_eq!(check(keep.clone()), 18);
        assert_eq!(
            check(LoaderConfig { keep_members: vec!["npy".to_owned()], ..keep.clone() }),
            18
        );
        // Substitutes replace the bad samples, whose members were read before.
        let full = LoaderConfig { last_batch: LastBatch::Drop, num_epochs: Some(4), ..keep };
        assert_eq!(check(full), 4 * 20);
    }
}
