//! Tests: the cache of whole shards.

use super::*;
use std::io::Write;

fn identity(etag: &str) -> Identity {
    Identity { etag: Some(etag.to_owned()), ..Identity::default() }
}

fn make(cache: &Cache, etag: &str, bytes: usize) -> File {
    let path = cache.path("http://h/a.tar", &identity(etag)).unwrap();
    let Found::Mine(mut claim) = cache.look(&path).unwrap() else {
        panic!("{etag} is there already");
    };
    claim.file.write_all(&vec![7; bytes]).unwrap();
    claim.keep().unwrap()
}

#[test]
fn a_partial_file_of_a_crashed_process_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned(), 1 << 20).unwrap();
    let path = cache.path("http://h/a.tar", &identity("1")).unwrap();
    let part = path.with_extension(PART);
    std::fs::write(&part, b"half of an ended process").unwrap();
    let Found::Mine(claim) = cache.look(&path).unwrap() else {
        panic!("its owner is gone");
    };
    assert_eq!(claim.file.metadata().unwrap().len(), 0);
    std::mem::forget(claim);
    let other = cache.path("http://h/a.tar", &identity("2")).unwrap();
    let other = other.with_extension(PART);
    std::fs::write(&other, b"x").unwrap();
    cache.trim();
    assert!(!other.exists() && part.exists(), "a living process keeps its claim");
}

#[test]
fn the_least_recently_used_shard_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned(), 2500).unwrap();
    let path = |etag: &str| cache.path("http://h/a.tar", &identity(etag)).unwrap();
    let reading = make(&cache, "1", 1000);
    for (place, etag) in ["2", "3"].into_iter().enumerate() {
        let age = Duration::from_secs(100 - place as u64);
        make(&cache, etag, 700).set_modified(SystemTime::now() - age).unwrap();
    }
    reading.set_modified(SystemTime::now() - Duration::from_secs(1000)).unwrap();
    make(&cache, "4", 700);
    let there = |etag: &str| path(etag).exists();
    assert_eq!([there("1"), there("2"), there("3"), there("4")], [true, false, true, true]);
    drop(reading);
    make(&cache, "5", 700);
    assert_eq!([there("1"), there("3"), there("5")], [false, true, true]);
}
