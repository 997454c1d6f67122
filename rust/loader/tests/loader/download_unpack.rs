//! Downloads that are decompressed, commands that write shards, early ends, and files that vanish.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::STORE;
use crate::server::{MIB, Page, Reply, Server, fetch, noise, schedule};
use prolip_loader::config::StoreConfig;
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
        assert!(fetch(&STORE, &location).unwrap() == plain, "{name}");

        // The data before the damage are used. A file that is no such stream is an error.
        let short = Page::new(packed[..packed.len() / 2].to_vec(), "\"one\"");
        let server = Server::start(vec![(name, short)], true, |_| Reply::Good);
        let got = fetch(&STORE, &Location::Url(server.url(name))).unwrap();
        // One more byte follows, so that it does not look like a complete archive.
        let (before, mark) = got.split_at(got.len() / 512 * 512);
        assert!(got.len() > MIB && plain.starts_with(before) && mark == b"?", "{name}");
        let none = Page::new(b"<html>no stream</html>".to_vec(), "\"one\"");
        let server = Server::start(vec![(name, none)], true, |_| Reply::Good);
        let error = fetch(&STORE, &Location::Url(server.url(name))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cannot be decompressed"), "{text}");
    }
    let small = StoreConfig { max_shard_bytes: 10 * MIB as u64, ..STORE };
    let server =
        Server::start(vec![("a.tgz", Page::new(gzip.clone(), "\"1\""))], true, |_| Reply::Good);
    let error = fetch(&small, &Location::Url(server.url("a.tgz"))).unwrap_err();
    assert!(error.to_string().contains("max_shard_bytes"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar.gz");
    std::fs::write(&path, &gzip).unwrap();
    assert!(fetch(&STORE, &Location::File(path)).unwrap() == plain);
}

#[test]
fn shards_from_commands_are_read_only_if_allowed() {
    let command = |text: &str| Location::Pipe(text.to_owned());
    let refused = fetch(&STORE, &command("echo x")).unwrap_err();
    assert!(refused.to_string().contains("allow_pipe"), "{refused}");
    let allowed = StoreConfig { allow_pipe: true, retries: 1, ..STORE };
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
fn a_hanging_command_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("pid");
    let config =
        StoreConfig { allow_pipe: true, retries: 0, timeout_s: 0.3, min_bytes_per_s: 0, ..STORE };
    let command = format!("sh -c 'echo $$ > {}; echo x; sleep 60' | cat", mark.display());
    let error = fetch(&config, &Location::Pipe(command)).unwrap_err();
    assert!(error.to_string().contains("no byte"), "{error}");
    let pid = std::fs::read_to_string(&mark).unwrap();
    let process = format!("/proc/{}/stat", pid.trim());
    let begun = Instant::now();
    // A killed process may stay as a zombie until its parent asks for its status.
    while std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
}
