//! Index files: opening, noticing changes, and rejecting damaged bytes.

use std::fs::FileTimes;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use crate::common::{STORE, archive, config, member, open, read_all, sample, write_shards};
use crate::server::{Page, Reply, Server};
use prolip_loader::archive::index::{Index, OpenOptions, Summary, check_index, write_index};
use prolip_loader::config::{LoaderConfig, OnMissingShard};
use prolip_loader::error::Error;
use prolip_loader::order::Cursor;
use prolip_loader::shards::{Location, expand};

static GO_ON: AtomicBool = AtomicBool::new(false);

fn locations(folder: &Path) -> Vec<Location> {
    let pattern = folder.join("*.tar").to_str().unwrap().to_owned();
    expand(&[pattern], OnMissingShard::Raise).unwrap()
}

pub fn make(folder: &Path) -> (PathBuf, Summary) {
    make_of(folder, &locations(folder))
}

pub fn make_of(folder: &Path, shards: &[Location]) -> (PathBuf, Summary) {
    let out = folder.join("shards.index");
    let summary = write_index(shards, &out, 3, &STORE, &GO_ON).unwrap();
    (out, summary)
}

pub fn with_index(folder: &Path, index: &Path) -> LoaderConfig {
    LoaderConfig { index: Some(index.to_str().unwrap().to_owned()), ..config(folder) }
}

fn opened(folder: &Path, index: &Path, missing: OnMissingShard) -> Result<Index, Error> {
    let opening =
        OpenOptions { missing, threads: 2, store: &STORE, cancelled: &GO_ON, chosen: &[] };
    Index::from_file(&locations(folder), index, opening)
}

/// Replaces a file's bytes and keeps its modification time.
fn replace(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let time = std::fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
    touch(path, time);
}

fn touch(path: &Path, time: SystemTime) {
    let file = std::fs::File::options().append(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[test]
fn an_index_gives_the_same_batches_and_opening_reads_no_shard() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[7, 0, 9, 5]);
    let (index, summary) = make(folder.path());
    assert_eq!((summary.shards, summary.samples), (4, 21));
    let run = |config| read_all(&open(config, 0, 1).unwrap(), Cursor::default()).unwrap();
    let config = with_index(folder.path(), &index);
    assert_eq!(run(config.clone()), run(crate::common::config(folder.path())));

    // Opening would refuse these bytes if it read them.
    replace(&folder.path().join("000.tar"), |bytes| bytes.fill(7));
    assert!(open(crate::common::config(folder.path()), 0, 1).is_err());
    let dataset = open(config, 0, 1).unwrap();
    assert_eq!(dataset.index.counts(), [7, 0, 9, 5]);
}

#[test]
fn a_changed_or_unindexed_shard_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[3, 4]);
    let (index, _) = make(folder.path());
    let path = folder.path().join("001.tar");
    let refused = || opened(folder.path(), &index, OnMissingShard::Raise).unwrap_err();
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    touch(&path, time + Duration::from_nanos(1000));
    assert!(matches!(refused(), Error::Changed { what, .. } if what.contains("written again")));
    touch(&path, time);
    assert!(opened(folder.path(), &index, OnMissingShard::Raise).is_ok());
    replace(&path, |bytes| bytes.truncate(1024));
    assert!(matches!(refused(), Error::Changed { what, .. } if what.contains("1024")));

    std::fs::remove_file(&path).unwrap();
    write_shards(&folder.path().join("."), &[3]);
    let (index, _) = make(folder.path());
    std::fs::copy(folder.path().join("000.tar"), &path).unwrap();
    let error = opened(folder.path(), &index, OnMissingShard::Skip).unwrap_err();
    assert!(matches!(error, Error::NotIndexed { .. }));
}

#[test]
fn an_index_holds_no_secrets_and_serves_a_shard_with_another_signature() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[3]);
    let page = Page::new(std::fs::read(folder.path().join("000.tar")).unwrap(), "\"1\"");
    let server = Server::start(vec![("000.tar", page)], true, |_| Reply::Good);
    let (store, out) = (STORE, folder.path().join("shards.index"));
    let at = |query: &str| [Location::of(&server.url(&format!("000.tar?sig={query}")))];
    write_index(&at("secret"), &out, 1, &store, &GO_ON).unwrap();
    assert!(!std::fs::read(&out).unwrap().windows(6).any(|bytes| bytes == b"secret"));
    let opening = OpenOptions {
        missing: OnMissingShard::Raise,
        threads: 1,
        store: &store,
        cancelled: &GO_ON,
        chosen: &[],
    };
    assert_eq!(Index::from_file(&at("other"), &out, opening).unwrap().counts(), [3]);
}

#[test]
fn a_shard_that_changes_during_a_run_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[3, 4]);
    let (index, _) = make(folder.path());
    for config in [config(folder.path()), with_index(folder.path(), &index)] {
        for missing in [OnMissingShard::Raise, OnMissingShard::Skip] {
            let path = folder.path().join("001.tar");
            let time = std::fs::metadata(&path).unwrap().modified().unwrap();
            let config =
                LoaderConfig { on_missing_shard: missing, max_bad_fraction: 0.0, ..config.clone() };
            let dataset = open(config, 0, 1).unwrap();
            touch(&path, time + Duration::from_secs(5));
            let error = read_all(&dataset, Cursor::default()).unwrap_err();
            let text = error.to_string();
            match missing {
                OnMissingShard::Raise => assert!(matches!(&*error, Error::Changed { .. })),
                OnMissingShard::Skip => assert!(text.contains("archive: "), "{text}"),
            }
            assert!(text.contains("written again"), "{text}");
            touch(&path, time);
        }
    }
}

#[test]
fn indexing_reports_damaged_shards_and_checks_them() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[3, 4]);
    let path = folder.path().join("001.tar");
    replace(&path, |bytes| bytes.truncate(bytes.len() / 2 + 600));
    let (index, summary) = make(folder.path());
    assert_eq!(summary.notes.len(), 1);
    assert!(summary.notes[0].contains("001.tar: byte "), "{summary:?}");
    let shards = locations(folder.path());
    let check = || check_index(&shards, &index, 2, &STORE, &GO_ON).unwrap();
    assert!(check().is_empty());

    // The same size, time and number of samples, but the first two samples have changed places.
    let parts = |keys: [&str; 2]| {
        archive(&keys.map(|key| member(&format!("{key}.png"), &vec![1; key.len() * 600])))
    };
    let path = folder.path().join("000.tar");
    replace(&path, |bytes| *bytes = parts(["a", "bb"]));
    make(folder.path());
    replace(&path, |bytes| *bytes = parts(["bb", "a"]));
    assert!(check()[0].contains("000.tar has its samples elsewhere"), "{:?}", check());
    let [first, ..] = &*locations(folder.path()) else { panic!() };
    std::fs::write(&path, archive(&[sample("more", [1; 3])])).unwrap();
    let more = [first.clone(), Location::File(folder.path().join("none.tar"))];
    let differences = check_index(&more, &index, 2, &STORE, &GO_ON).unwrap();
    assert!(differences[0].contains("bytes, and had"), "{differences:?}");
    assert!(differences[1].contains("none.tar is not in it"), "{differences:?}");
}

fn sound() -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path(), &[2, 1]);
    let bytes = std::fs::read(make(folder.path()).0).unwrap();
    (folder, bytes)
}

#[test]
fn every_changed_byte_of_an_index_is_noticed() {
    let (folder, sound) = sound();
    let index = folder.path().join("shards.index");
    let read = || -> Result<(), String> {
        let index = opened(folder.path(), &index, OnMissingShard::Raise);
        let index = index.map_err(|error| error.to_string())?;
        for shard in 0..2 {
            index.regions(shard).map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    assert_eq!(read(), Ok(()));
    for place in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[place] ^= 0x10;
        std::fs::write(&index, &bytes).unwrap();
        assert!(read().is_err(), "byte {place}");
        std::fs::write(&index, &sound[..place]).unwrap();
        assert!(read().is_err(), "first {place} bytes");
    }
}
