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

fn names(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn one_process_fetches_a_shard_and_the_others_wait() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned(), 1 << 20).unwrap();
    let path = cache.path("http://h/a.tar", &identity("1")).unwrap();
    assert_ne!(path, cache.path("http://h/a.tar", &identity("2")).unwrap());
    assert_ne!(path, cache.path("http://h/b.tar", &identity("1")).unwrap());
    assert!(cache.path("http://h/a.tar", &Identity::default()).is_none());
    let Found::Mine(mut claim) = cache.look(&path).unwrap() else {
        panic!("nobody has it");
    };
    assert!(matches!(cache.look(&path).unwrap(), Found::Busy));
    claim.file.write_all(b"half").unwrap();
    drop(claim);
    assert_eq!(names(folder.path()), 0, "a claim that is given up leaves nothing");
    let Found::Mine(mut claim) = cache.look(&path).unwrap() else {
        panic!("it was given up");
    };
    claim.file.write_all(b"whole").unwrap();
    let kept = claim.keep().unwrap();
    assert!(matches!(cache.look(&path).unwrap(), Found::Whole(_)));
    drop(kept);
    let Found::Whole(file) = cache.look(&path).unwrap() else {
        panic!("it is kept");
    };
    assert_eq!(io::read_to_string(file).unwrap(), "whole");
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
fn a_stalled_process_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned(), 1 << 20).unwrap();
    let path = cache.path("http://h/a.tar", &identity("1")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build();
    let wait = |milliseconds| {
        let patience = Duration::from_millis(milliseconds);
        let waited = runtime.as_ref().unwrap().block_on(cache.wait(&path, patience));
        waited.unwrap()
    };
    let Found::Mine(mut claim) = cache.look(&path).unwrap() else {
        panic!("nobody has it");
    };
    assert!(matches!(wait(100), Found::Busy));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(100));
                claim.file.write_all(b"more").unwrap();
            }
            claim.keep().unwrap();
        });
        assert!(matches!(wait(600), Found::Whole(_)), "it goes on");
    });
}

#[test]
fn files_of_others_in_the_cache_folder_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["film.part", "my.shard", "0123.part", "notes"];
    for name in names {
        std::fs::write(folder.path().join(name), b"mine").unwrap();
    }
    Cache::new(folder.path().to_owned(), 1).unwrap().trim();
    assert!(names.iter().all(|name| folder.path().join(name).exists()));
}

#[test]
fn links_and_a_cache_folder_that_others_may_write_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned(), 1 << 20).unwrap();
    let path = cache.path("http://h/a.tar", &identity("1")).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    std::fs::write(&elsewhere, b"precious").unwrap();
    for name in [path.clone(), path.with_extension(PART)] {
        std::os::unix::fs::symlink(&elsewhere, &name).unwrap();
        assert!(cache.look(&path).is_err(), "{}", name.display());
        std::fs::remove_file(name).unwrap();
    }
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"precious");
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    std::fs::set_permissions(folder.path(), all).unwrap();
    let error = Cache::new(folder.path().to_owned(), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("everyone may write"), "{error}");
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
