//! Downloads from servers that break, lie and change.
use std::time::{Duration, Instant};

use crate::common::STORE;
use crate::prefetch::{content, partly, wait_for};
use crate::server::{MIB, Page, Reply, Request, SIZE, Server, fetch, noise, one, schedule};
use prolip_loader::config::StoreConfig;
use prolip_loader::shards::{Location, Stamp};
use proptest::prelude::*;

#[test]
fn a_shard_is_downloaded_in_several_ranges_at_once() {
    let bytes = noise(SIZE, 1);
    let late = |_: &Request| Reply::Late(Duration::from_millis(50));
    let (server, location) = one(&bytes, true, late);
    assert!(fetch(&STORE, &location).unwrap() == bytes);
    let mut ranges: Vec<_> = server.requests().iter().map(|r| r.range.unwrap()).collect();
    ranges.sort_unstable();
    let eight = 8 * MIB as u64;
    assert_eq!(ranges, [(0, eight - 1), (eight, 2 * eight - 1), (2 * eight, SIZE as u64 - 1)]);
    assert!(server.most_at_once() > 1 && server.most_at_once() <= 3);
    // Later requests demand the state of the first answer.
    let matching = server.requests().iter().filter(|r| r.if_match.is_some()).count();
    assert_eq!(matching, 2);
}

#[test]
fn a_broken_download_resumes_at_its_last_byte_after_the_pause_that_is_asked_for() {
    let bytes = noise(6 * MIB, 3);
    let busy = Reply::Status(503, "Retry-After: 1\r\n".to_owned());
    let replies = vec![busy, Reply::Truncate(2 * MIB), Reply::Stall(MIB, Duration::from_secs(6))];
    let (server, location) = one(&bytes, true, schedule(replies));
    let begun = Instant::now();
    assert!(fetch(&STORE, &location).unwrap() == bytes);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let starts = server
        .requests()
        .iter()
        .map(|request| request.range.unwrap().0 as usize)
        .collect::<Vec<_>>();
    assert_eq!(starts, [0, 0, 2 * MIB, 3 * MIB]);
}

#[test]
fn retries_are_limited_and_errors_hide_secrets() {
    for (status, attempts) in [(503, 5), (403, 1), (404, 1)] {
        let (server, _) = one(b"x", true, move |_| Reply::Status(status, String::new()));
        let url = server.url("a.tar?signature=secret").replace("http://", "http://me:secret@");
        let error = fetch(&STORE, &Location::Url(url)).unwrap_err();
        assert_eq!((error.attempts, server.requests().len()), (attempts, attempts as usize));
        assert!(error.what.contains(&status.to_string()), "{error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    let (server, gone) = one(b"x", true, |_| Reply::Good);
    drop(server);
    let config = StoreConfig { retries: 1, ..STORE };
    assert_eq!(fetch(&config, &gone).unwrap_err().attempts, 2);
}

#[test]
fn redirected_downloads_stay_there_and_send_no_secrets() {
    let bytes = noise(SIZE, 8);
    // The second server refuses the third request, like a signed address that has expired.
    let (second, there) = one(&bytes, true, |request: &Request| match request.number {
        2 => Reply::Status(403, String::new()),
        _ => Reply::Good,
    });
    let redirect = Reply::Status(302, format!("Location: {}?signature=1\r\n", there.written()));
    let (first, _) = one(b"x", true, move |_| redirect.clone());
    let url = first.url("a.tar?key=mine").replace("http://", "http://me:secret@");
    let config = StoreConfig { connections: 1, ..STORE };
    assert!(fetch(&config, &Location::Url(url)).unwrap() == bytes);
    let secret = |request: &Request| request.headers.contains_key("authorization");
    let (asked, answered) = (first.requests(), second.requests());
    assert_eq!((asked.len(), answered.len()), (2, 4));
    assert!(asked.iter().all(secret) && !answered.iter().any(secret));
    let told = |request: &Request| request.headers.contains_key("referer");
    assert!(!answered.iter().any(told));
}

#[test]
fn a_shard_that_changes_during_a_download_is_fetched_anew() {
    let (old, new) = (noise(SIZE, 6), noise(SIZE, 7));
    for (etag, modified) in
        [(Some("\"two\""), None), (None, Some("tuesday")), (Some("W/\"two\""), None)]
    {
        let page = |bytes: &[u8], second: bool| Page {
            bytes: bytes.to_vec().into(),
            etag: etag.map(|tag| if second { tag.to_owned() } else { tag.replace("two", "one") }),
            modified: modified.map(|day| if second { day.to_owned() } else { "monday".to_owned() }),
        };
        let changed = page(&new, true);
        let behaviour = move |request: &Request| match request.number {
            1 => Reply::Change(changed.clone()),
            _ => Reply::Good,
        };
        let server = Server::start(vec![("a.tar", page(&old, false))], true, behaviour);
        let got = fetch(&STORE, &Location::Url(server.url("a.tar"))).unwrap();
        assert!(got == new, "{etag:?} {modified:?}");
    }
}

fn replies() -> impl Strategy<Value = Reply> {
    let bytes = 0usize..3_000_000;
    prop_oneof![
        3 => Just(Reply::Good),
        2 => bytes.clone().prop_map(Reply::Truncate),
        2 => bytes.prop_map(Reply::Reset),
        1 => prop_oneof![Just(500), Just(503), Just(416)].prop_map(|code| Reply::Status(code, String::new())),
        1 => (0u64..20).prop_map(|pause| Reply::Late(Duration::from_millis(pause))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_faults_still_give_the_shards_bytes(
        size in prop_oneof![Just(0usize), Just(1), 1usize..12_000_000, Just(8 << 20), Just((8 << 20) + 1)],
        replies in proptest::collection::vec(replies(), 0..6),
        ranges in any::<bool>(),
        connections in 1usize..5,
        wanted in proptest::collection::btree_set(0u64..12, 0..4),
    ) {
        let bytes = noise(size, size as u64);
        let (_server, location) = one(&bytes, ranges, schedule(replies));
        let config = StoreConfig { connections, retries: 8, ..STORE };
        let stamp = Stamp { size: size as u64, ..Stamp::default() };
        let wanted: Vec<_> = wanted.into_iter().map(|mib| mib << 10..(mib + 1) << 10).collect();
        let prefetcher = partly(&location, &stamp, &wanted, &config);
        wait_for(&prefetcher, 0);
        let got = content(&prefetcher, 0);
        prop_assert!(got.len() == size && (got == bytes || !wanted.is_empty()));
        for range in wanted {
            let kib = |at: u64| size.min((at << 10) as usize);
            let range = kib(range.start)..kib(range.end);
            prop_assert!(got[range.clone()] == bytes[range]);
        }
    }
}
