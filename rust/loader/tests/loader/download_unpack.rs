//! Downloads that are decompressed, commands that write shards, early ends, and files that vanish.

use std::io::Write;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::server::{
    MIB, Page, Reply, Request, Server, config, content, fetch, noise, one, schedule,
};
use prolip_loader::config::StoreConfig;
use prolip_loader::remote::Store;
use prolip_loader::shards::Location;

#[test]
fn compressed_shards_are_unpacked_while_downloading() {
    let plain = [noise(3 * MIB, 8), vec![7; 20 * MIB]].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let (gzip, zstd) = (gzip.finish().unwrap(), zstd::encode_all(&plain[..], 1).unwrap());
    let replies = || schedule(vec![Reply::Truncate(MIB), Reply::Reset(MIB)]);
    for (name, packed) in [("a.tar.gz", &gzip), ("a.tar.zst", &zstd)] {
        let page = Page::new(packed.clone(), "\"one\"");
        let server = Server::start(vec![(name, page)], true, replies());
        let location = Location::Url(server.url(name));
        assert!(fetch(&config(), &location).unwrap() == plain, "{name}");

        // The data before the damage are used. A file that is no such stream is an error.
        let short = Page::new(packed[..packed.len() / 2].to_vec(), "\"one\"");
        let server = Server::start(vec![(name, short)], true, |_| Reply::Good);
        let got = fetch(&config(), &Location::Url(server.url(name))).unwrap();
        // One more byte follows, so that it does not look like a complete archive.
        let (before, mark) = got.split_at(got.len() / 512 * 512);
        assert!(got.len() > MIB && plain.starts_with(before) && mark == b"?", "{name}");
        let none = Page::new(b"<html>no stream</html>".to_vec(), "\"one\"");
        let server = Server::start(vec![(name, none)], true, |_| Reply::Good);
        let error = fetch(&config(), &Location::Url(server.url(name))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cannot be decompressed"), "{text}");
    }
    let small = StoreConfig { max_shard_bytes: 10 * MIB as u64, ..config() };
    let server =
        Server::start(vec![("a.tgz", Page::new(gzip.clone(), "\"1\""))], true, |_| Reply::Good);
    let error = fetch(&small, &Location::Url(server.url("a.tgz"))).unwrap_err();
    assert!(error.to_string().contains("max_shard_bytes"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar.gz");
    std::fs::write(&path, &gzip).unwrap();
    assert!(fetch(&config(), &Location::File(path)).unwrap() == plain);
}

/// Name lookups use the same threads as unpacking.
#[test]
fn unpacking_many_shards_does_not_block_name_lookups() {
    const SHARDS: usize = 12;
    let plain = noise(MIB, 9);
    let packed = zstd::encode_all(&plain[..], 1).unwrap();
    let names: Vec<String> = (0..SHARDS).map(|number| format!("{number}.tar.zst")).collect();
    let pages = names.iter().map(|name| (&**name, Page::new(packed.clone(), "\"1\"")));
    let all_begun = Barrier::new(SHARDS);
    let server = Server::start(pages.collect(), true, move |request| {
        if request.range.is_some_and(|(first, _)| first > 0) {
            return Reply::Good;
        }
        all_begun.wait();
        Reply::Stall(MIB / 4, Duration::from_millis(300))
    });
    let patient = StoreConfig { connections: SHARDS, retries: 1, timeout_s: 3.0, ..config() };
    let store = Store::open(&patient).unwrap();
    std::thread::scope(|scope| {
        for name in &names {
            let url = server.url(name).replace("127.0.0.1", "localhost");
            let (store, plain) = (&store, &plain);
            scope.spawn(move || {
                let fetched = store.fetch(&Location::Url(url), &AtomicBool::new(false));
                assert!(content(fetched.unwrap()) == *plain);
            });
        }
    });
}

#[test]
fn shards_from_commands_are_read_only_if_allowed() {
    let command = |text: &str| Location::Pipe(text.to_owned());
    let refused = fetch(&config(), &command("echo x")).unwrap_err();
    assert!(refused.to_string().contains("allow_pipe"), "{refused}");
    let allowed = StoreConfig { allow_pipe: true, retries: 1, ..config() };
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(fetch(&allowed, &command("seq 1 100000 | cat")).unwrap() == numbers.as_bytes());
    let failed = fetch(&allowed, &command("echo half; echo why >&2; exit 3")).unwrap_err();
    assert!(failed.to_string().contains("status: 3: why (tried 2 times)"), "{failed}");
    let unknown = fetch(&allowed, &command("no-such-command-anywhere")).unwrap_err();
    assert_eq!(unknown.attempts, 1, "{unknown}");
    // This command fails the first time and works the second time.
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let once = format!("echo text; test -e {0} || {{ touch {0}; exit 1; }}", mark.display());
    assert!(fetch(&allowed, &command(&once)).unwrap() == b"text\n");
}

#[test]
fn the_end_of_what_a_failed_command_says_is_quoted_without_secrets() {
    let once = StoreConfig { allow_pipe: true, retries: 0, ..config() };
    let foreign = "printf '‘%.0s' $(seq 300) >&2; echo 'why’' >&2; exit 3";
    let error = fetch(&once, &Location::Pipe(foreign.to_owned())).unwrap_err();
    assert!(error.what.ends_with("‘‘why’"), "{error}");
    assert_eq!(error.what.matches('‘').count(), 196, "{error}");
    let signed = "echo https://h/a.tar?$(seq 100 | tr '\n' '-')signature=secret: no >&2; exit 3";
    let error = fetch(&once, &Location::Pipe(signed.to_owned())).unwrap_err();
    assert!(error.what.ends_with(": https://h/a.tar?…: no"), "{error}");
}

#[test]
fn a_hanging_command_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("pid");
    let config = StoreConfig {
        allow_pipe: true,
        retries: 0,
        timeout_s: 0.3,
        min_bytes_per_s: 0,
        ..config()
    };
    let command = format!("sh -c 'echo $$ > {}; echo x; sleep 60' | cat", mark.display());
    let error = fetch(&config, &Location::Pipe(command)).unwrap_err();
    assert!(error.to_string().contains("no byte for 300ms"), "{error}");
    let pid = std::fs::read_to_string(&mark).unwrap();
    let process = format!("/proc/{}/stat", pid.trim());
    let begun = Instant::now();
    // A killed process may stay as a zombie until its parent asks for its status.
    while std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_cancelled_fetch_returns_within_a_second() {
    let stalling = |_: &Request| Reply::Stall(100, Duration::from_secs(30));
    let (_server, location) = one(&noise(MIB, 9), true, stalling);
    let patient = StoreConfig { timeout_s: 60.0, allow_pipe: true, ..config() };
    for location in [location, Location::Pipe("sleep 60".to_owned())] {
        let store = Store::open(&patient).unwrap();
        let cancelled = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                cancelled.store(true, Ordering::SeqCst);
            });
            let begun = Instant::now();
            assert!(store.fetch(&location, &cancelled).is_err());
            drop(store);
            assert!(begun.elapsed() < Duration::from_millis(1200), "{location}");
        });
    }
}

#[test]
fn no_file_is_left_in_the_cache_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, location) = one(&noise(MIB, 10), true, |_| Reply::Good);
    let config = StoreConfig { cache_dir: Some(folder.path().to_owned()), ..config() };
    let store = Store::open(&config).unwrap();
    let fetched = store.fetch(&location, &AtomicBool::new(false)).unwrap();
    let names = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    assert_eq!(names(folder.path()), 0, "the file has no name while it is used");
    assert_eq!(content(fetched).len(), MIB);
    // The error names a folder that is gone, like one that is full.
    std::fs::remove_dir(folder.path()).unwrap();
    let error = store.fetch(&location, &AtomicBool::new(false)).unwrap_err().to_string();
    let place = format!("; the folder (store.cache_dir) is {}, where ", folder.path().display());
    assert!(error.contains("no file can be made: ") && error.contains(&place), "{error}");
    std::fs::create_dir(folder.path()).unwrap();
    let nowhere = StoreConfig { cache_dir: Some(folder.path().join("file/none")), ..config };
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let error = Store::open(&nowhere).unwrap_err();
    assert!(error.to_string().contains("cannot be made"), "{error}");
}
