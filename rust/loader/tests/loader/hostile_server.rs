//! Servers that send endlessly, very slowly, or less than they say.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::common::{archive, sample};
use crate::server::{MIB, Page, Reply, Request, SIZE, Server, config, fetch, noise, one};
use prolip_loader::archive::scan_file;
use prolip_loader::config::StoreConfig;
use prolip_loader::remote::{Prefetcher, ShardProvider, ShardRequest, Store};
use prolip_loader::shards::{Location, Stamp, Version};

fn failure(config: &StoreConfig, location: &Location) -> String {
    fetch(config, location).unwrap_err().to_string()
}

// ---- too many bytes ------------------------------------------------------------------------------------------------

#[test]
fn an_endless_body_is_stopped_at_the_size_limit() {
    let limited = StoreConfig { max_shard_bytes: 3 * MIB as u64, allow_pipe: true, ..config() };
    let (server, location) = one(b"x", true, |_| Reply::Endless);
    let limit = "more bytes than store.max_shard_bytes = 3145728 allows (tried once)";
    let error = failure(&limited, &location);
    assert!(error.contains(limit), "{error}");
    // The buffers of the sockets come on top.
    assert!(server.endless_bytes() < 30 * MIB, "{}", server.endless_bytes());
    let error = failure(&limited, &Location::Pipe("yes".to_owned()));
    assert!(error.contains("pipe:yes: it has more bytes than"), "{error}");
}

#[test]
fn a_size_above_the_limit_is_refused_before_the_download() {
    for claim in [SIZE as u64 + 1, u64::MAX] {
        let (server, location) =
            one(&noise(SIZE, 1), true, move |_| Reply::Claim(claim.to_string()));
        let limited = StoreConfig { max_shard_bytes: SIZE as u64, ..config() };
        let error = failure(&limited, &location);
        assert!(error.contains("store.max_shard_bytes"), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

/// A prefetcher of these shards on a server. Each is expected to have `size` bytes.
fn prefetcher(server: &Server, names: &[&str], size: u64, config: &StoreConfig) -> Prefetcher {
    let urls: Vec<String> = names.iter().map(|name| server.url(name)).collect();
    let request_of = move |shard: u32| {
        Some(ShardRequest {
            location: Location::Url(urls.get(shard as usize)?.clone()),
            stamp: Some(Stamp { size, version: Version::Unknown }),
        })
    };
    Prefetcher::open(config, Box::new(request_of), scan_file).unwrap()
}

fn wait_for(prefetcher: &Prefetcher, shard: u32) {
    let begun = Instant::now();
    while !prefetcher.is_ready(shard) {
        assert!(begun.elapsed() < Duration::from_secs(20), "shard {shard}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Shards that no batch waits for stay within the limit, even if the server does not say their size.
#[test]
fn a_prefetched_shard_above_the_limit_pauses_until_a_batch_needs_it() {
    let small = noise(MIB, 1);
    let pages = ["a.tar", "b.tar", "c.tar"].map(|name| (name, Page::new(small.clone(), "\"1\"")));
    let server = Server::start(pages.to_vec(), true, |request| match &*request.path {
        "/b.tar" => Reply::Endless,
        _ => Reply::Good,
    });
    let limited = StoreConfig {
        read_ahead_bytes: 6 * MIB as u64,
        max_shard_bytes: 40 * MIB as u64,
        ..config()
    };
    let names = ["a.tar", "b.tar", "c.tar"];
    let prefetcher = prefetcher(&server, &names, MIB as u64, &limited);
    let asked_for_b = |server: &Server| {
        let is_b = |request: &&Request| request.path == "/b.tar";
        server.requests().iter().filter(is_b).count()
    };
    prefetcher.request(&[0, 1]);
    wait_for(&prefetcher, 0);
    std::thread::sleep(Duration::from_millis(500));
    let sent = server.endless_bytes();
    assert!((5 * MIB..30 * MIB).contains(&sent), "{sent}");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((server.endless_bytes(), asked_for_b(&server)), (sent, 1));
    // Another shard that a batch waits for is fetched meanwhile.
    prefetcher.request(&[2]);
    wait_for(&prefetcher, 2);
    assert_eq!(asked_for_b(&server), 1);
    // Now a batch waits for it, so that only the limit of a single shard ends it.
    wait_for(&prefetcher, 1);
    assert_eq!(asked_for_b(&server), 2);
    let error = prefetcher.get(1).unwrap_err().to_string();
    assert!(error.contains("b.tar: it has more bytes than store.max_shard_bytes"), "{error}");
}

// ---- too few bytes -------------------------------------------------------------------------------------------------

#[test]
fn a_server_that_sends_single_bytes_is_given_up() {
    let hasty = StoreConfig { timeout_s: 0.3, retries: 2, allow_pipe: true, ..config() };
    let pause = Duration::from_millis(20);
    let (server, location) = one(&noise(MIB, 2), true, move |_| Reply::Drip(1, pause));
    let begun = Instant::now();
    let error = failure(&hasty, &location);
    assert!(error.contains("fewer than store.min_bytes_per_s = 1024 (tried 3 times)"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(server.requests().len(), 3);
    let command = "while true; do echo x; sleep 0.05; done".to_owned();
    let error = failure(&hasty, &Location::Pipe(command));
    assert!(error.contains("store.min_bytes_per_s"), "{error}");
    // A slow server above the minimum is accepted, and with a minimum of 0 any server is.
    let bytes = noise(60_000, 3);
    for (rate, least) in [(50_000, 1024), (300, 0)] {
        let piece = rate / 50;
        let bytes = &bytes[..rate];
        let (_server, location) = one(bytes, true, move |_| Reply::Drip(piece, pause));
        let patient = StoreConfig { retries: 0, min_bytes_per_s: least, ..hasty.clone() };
        assert!(fetch(&patient, &location).unwrap() == bytes, "{rate}");
    }
}

#[test]
fn very_short_answers_are_given_up_after_the_retries() {
    let bytes = noise(2 * MIB, 4);
    let (server, location) = one(&bytes, true, |_| Reply::Short(1000));
    let error = failure(&config(), &location);
    assert!(
        error.contains("the connection ended at byte 5000 of 2097152 (tried 5 times)"),
        "{error}"
    );
    assert_eq!(server.requests().len(), 5);
    // Answers with enough bytes never count as failures.
    let (server, location) = one(&bytes, true, |_| Reply::Short(100_000));
    assert!(fetch(&config(), &location).unwrap() == bytes);
    assert_eq!(server.requests().len(), bytes.len().div_ceil(100_000));
}

#[test]
fn a_requested_retry_pause_is_noted() {
    let server =
        Server::start(vec![("a.tar", Page::new(noise(MIB, 5), "\"1\""))], true, |request| {
            match request.number {
                0 => Reply::Status(503, "Retry-After: 1\r\n".to_owned()),
                _ => Reply::Good,
            }
        });
    let prefetcher = prefetcher(&server, &["a.tar"], MIB as u64, &config());
    prefetcher.request(&[0]);
    wait_for(&prefetcher, 0);
    let [note] = <[String; 1]>::try_from(prefetcher.notes()).unwrap();
    let expected = "a.tar: the server answers 503 (unavailable), and asks for a pause of 1s: trying again in 1s";
    assert!(note.starts_with("shard http://") && note.ends_with(expected), "{note}");
    assert!(prefetcher.notes().is_empty());
}

// ---- fewer bytes than there are ------------------------------------------------------------------------------------

#[test]
fn a_download_cut_between_samples_is_damaged() {
    let samples: Vec<Vec<u8>> = (0..6).map(|key| sample(&format!("{key}"), [key; 3])).collect();
    let bytes = archive(&samples);
    let half = samples[..3].concat().len();
    // The server says no size and closes the connection; or it has, and announces, only a half.
    for (page, reply) in [(&bytes[..], Reply::Unsized(half)), (&bytes[..half], Reply::Good)] {
        let (_server, location) = one(page, false, move |_| reply.clone());
        let store = Store::open(&config()).unwrap();
        let fetched = store.fetch(&location, &AtomicBool::new(false)).unwrap();
        assert_eq!(fetched.stamp.size, half as u64);
        // Three samples, and the damage.
        assert_eq!(scan_file(&fetched.file, true).unwrap().len(), 4);
        assert_eq!(scan_file(&fetched.file, false).unwrap().len(), 3);
    }
}

#[test]
fn inconsistent_sizes_are_an_error() {
    // Without ETag and time, only the size shows that the shard has changed.
    let plain = |bytes: Vec<u8>| Page { bytes: bytes.into(), etag: None, modified: None };
    let new = noise(SIZE + 512, 7);
    let changed = plain(new.clone());
    let behaviour = move |request: &Request| match request.number {
        1 => Reply::Change(changed.clone()),
        _ => Reply::Good,
    };
    let server = Server::start(vec![("a.tar", plain(noise(SIZE, 6)))], true, behaviour);
    let location = Location::Url(server.url("a.tar"));
    assert!(fetch(&config(), &location).unwrap() == new);
    // The claimed size is too large, so ranges beyond the real end fail.
    let (_server, location) = one(&noise(MIB, 8), true, |_| Reply::Claim((3 * MIB).to_string()));
    let error = failure(&config(), &location);
    assert!(
        error.contains("the server answers 416") || error.contains("the connection ended at"),
        "{error}"
    );
}
