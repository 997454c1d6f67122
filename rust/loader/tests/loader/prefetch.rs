//! Prefetched shards: downloaded in order, within the disk limit, once for all processes of a node.
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{STORE, archive, member};
use crate::server::{MIB, Page, Reply, Request, Server, noise, one};
use prolip_loader::archive::scan_file;
use prolip_loader::config::StoreConfig;
use prolip_loader::remote::{Prefetcher, ShardProvider, ShardRequest};
use prolip_loader::shards::{Location, Stamp, Version};

/// A shard of about `size` bytes with `number` + 1 samples.
fn shard(number: usize, size: usize) -> Vec<u8> {
    let samples: Vec<_> = (0..=number)
        .map(|sample| member(&format!("{sample}.jpg"), &noise(size / (number + 1), number as u64)))
        .collect();
    archive(&samples)
}

fn open(
    config: &StoreConfig,
    request_of: impl Fn(u32) -> Option<ShardRequest> + Send + Sync + 'static,
) -> Prefetcher {
    let scan = |_, file: &File| scan_file(file, true).map_err(|error| error.to_string());
    Prefetcher::open(config, Box::new(request_of), Box::new(scan)).unwrap()
}

struct Lab {
    server: Server,
    shards: Vec<Vec<u8>>,
    names: Vec<String>,
}

impl Lab {
    fn new(
        count: usize,
        size: usize,
        behaviour: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let shards: Vec<_> = (0..count).map(|number| shard(number, size)).collect();
        let names: Vec<_> = (0..count).map(|number| format!("{number}.tar")).collect();
        let pages = names
            .iter()
            .zip(&shards)
            .map(|(name, bytes)| (name.as_str(), Page::new(bytes.clone(), &format!("\"{name}\""))));
        Self { server: Server::start(pages.collect(), true, behaviour), shards, names }
    }

    /// A prefetcher of the shards, then one that is missing, then a plain local file.
    fn prefetcher(&self, config: &StoreConfig, stamp: Option<Stamp>) -> Prefetcher {
        let mut urls: Vec<_> = self.names.iter().map(|name| self.server.url(name)).collect();
        urls.push(self.server.url("none.tar"));
        let request_of = move |shard: u32| {
            Some(ShardRequest {
                location: Location::Url(urls.get(shard as usize)?.clone()),
                stamp: stamp.clone(),
                wanted: Vec::new(),
            })
        };
        open(config, request_of)
    }

    fn first_requests(&self) -> Vec<String> {
        let first = |request: &Request| request.range.is_some_and(|(start, _)| start == 0);
        let requests = self.server.requests();
        requests.iter().filter(|r| first(r)).map(|r| r.path[1..].to_owned()).collect()
    }
}

/// Waits until a shard is ready, as a pipeline does: it asks again whenever something has changed.
pub fn wait_for(prefetcher: &Prefetcher, shard: u32) {
    wait_until(|| prefetcher.is_ready(shard));
}

fn wait_until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn content(prefetcher: &Prefetcher, shard: u32) -> Vec<u8> {
    let lent = prefetcher.get(shard).unwrap().expect("it is here");
    let mut bytes = vec![0; lent.file.metadata().unwrap().len() as usize];
    lent.file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn prefetched_shards_are_complete_and_have_their_lengths() {
    let lab = Lab::new(4, MIB, |_| Reply::Good);
    let prefetcher = lab.prefetcher(&STORE, None);
    assert_eq!(prefetcher.length(2).map(Result::unwrap), None);
    prefetcher.request(&[2, 0, 3, 1]);
    for number in [2, 0, 3, 1] {
        wait_for(&prefetcher, number);
        assert!(content(&prefetcher, number) == lab.shards[number as usize]);
        assert_eq!(prefetcher.length(number).unwrap().unwrap(), u64::from(number) + 1);
        let regions = prefetcher.get(number).unwrap().unwrap().regions.unwrap();
        assert_eq!(regions.len(), number as usize + 1);
    }
    prefetcher.release(3);
    assert!(prefetcher.get(3).unwrap().is_none());
    assert_eq!(prefetcher.length(3).unwrap().unwrap(), 4, "a length is remembered");
    // A plain local file is always ready and never fetched.
    assert!(prefetcher.is_ready(5) && prefetcher.get(5).unwrap().is_none());
}

#[test]
fn read_ahead_stays_within_its_limit_unless_a_batch_waits() {
    let lab = Lab::new(8, 3 * MIB, |_| Reply::Good);
    let config = StoreConfig { read_ahead_bytes: 7 * MIB as u64, ..STORE };
    let prefetcher = lab.prefetcher(&config, None);
    prefetcher.request(&[0, 1, 2, 3]);
    prefetcher.request(&[2, 4, 5, 6, 7]);
    wait_for(&prefetcher, 0);
    wait_for(&prefetcher, 1);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lab.first_requests(), ["0.tar", "1.tar"]);
    // A batch needs a shard beyond the limit.
    wait_for(&prefetcher, 5);
    assert_eq!(lab.first_requests()[2..], ["5.tar"]);
    for released in [0, 1, 5] {
        prefetcher.release(released);
    }
    wait_until(|| lab.first_requests().len() == 5);
    let mut next = lab.first_requests()[3..].to_vec();
    next.sort();
    assert_eq!(next, ["2.tar", "3.tar"]);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn processes_of_a_node_fetch_a_shard_once() {
    let folder = tempfile::tempdir().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let lab = Lab::new(1, 20 * MIB, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Reply::Late(Duration::from_millis(100))
    });
    let config = StoreConfig {
        cache_dir: Some(folder.path().join("made")),
        cache_bytes: 30 * MIB as u64,
        ..STORE
    };
    let spools: Vec<_> = (0..4).map(|_| lab.prefetcher(&config, None)).collect();
    for prefetcher in &spools {
        prefetcher.request(&[0]);
    }
    for prefetcher in &spools {
        wait_for(prefetcher, 0);
        assert!(content(prefetcher, 0) == lab.shards[0]);
    }
    // All ask for the first range to identify the shard, perhaps twice. One fetches the rest.
    let bodies = lab.server.requests().iter().filter(|r| r.range.unwrap().0 > 0).count();
    assert_eq!(bodies, 2);
    drop(spools);
    assert_eq!(names(&folder.path().join("made")).len(), 1);
    let before = requests.load(Ordering::SeqCst);
    let later = lab.prefetcher(&config, None);
    later.request(&[0]);
    wait_for(&later, 0);
    assert!(content(&later, 0) == lab.shards[0]);
    assert_eq!(requests.load(Ordering::SeqCst), before + 1);
}

/// A prefetcher of one indexed shard, of which these KiB are wanted.
pub fn partly(
    location: &Location,
    stamp: &Stamp,
    wanted: &[Range<u64>],
    config: &StoreConfig,
) -> Prefetcher {
    let wanted = wanted.iter().map(|range| range.start << 10..range.end << 10).collect();
    let request = ShardRequest { location: location.clone(), stamp: Some(stamp.clone()), wanted };
    open(config, move |_| Some(request.clone()))
}

#[test]
fn only_wanted_ranges_are_fetched_if_they_are_less_than_half() {
    let bytes = noise(20 * MIB, 1);
    let stamp = Stamp { size: bytes.len() as u64, ..Stamp::default() };
    let folder = tempfile::tempdir().unwrap();
    let whole = vec![0..8192, 8192..16_384, 16_384..20_480];
    // In KiB. One request crosses gaps of up to 256.
    for (wanted, expected, cache_bytes) in [
        (vec![3..90, 90..200, 456..457, 714..715], vec![3..457, 714..715], 0),
        (vec![3..90, 90..91], whole.clone(), 30 << 20),
        (vec![0..5000, 5256..10_240], whole, 0),
    ] {
        let (server, location) = one(&bytes, true, |_| Reply::Good);
        let cache_dir = Some(folder.path().to_owned());
        // Half of the shard fits.
        let read_ahead_bytes = 10 << 20;
        let config = StoreConfig { cache_dir, cache_bytes, read_ahead_bytes, ..STORE };
        let prefetcher = partly(&location, &stamp, &wanted, &config);
        for _ in 0..2 {
            prefetcher.request(&[0]);
            wait_until(|| expected.len() == 3 || prefetcher.get(0).unwrap().is_some());
            wait_for(&prefetcher, 0);
            prefetcher.release(0);
        }
        let mut asked: Vec<_> = server.requests().iter().map(|r| r.range.unwrap()).collect();
        asked.sort_unstable();
        asked.dedup();
        let asked = asked.iter().map(|(first, last)| first >> 10..(last + 1) >> 10);
        assert_eq!(asked.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_shard_that_is_not_the_indexed_one_is_named_whatever_is_wanted() {
    let (_server, location) = one(&noise(MIB, 1), true, |_| Reply::Good);
    for (size, etag, what) in
        [(1 << 20, "older", "it was written again"), (30 << 20, "one", "it had 31457280 bytes")]
    {
        let stamp = Stamp { size, version: Version::ETag(format!("\"{etag}\"").into()) };
        for wanted in [vec![], vec![5000..5001, 6000..6001]] {
            let prefetcher = partly(&location, &stamp, &wanted, &STORE);
            wait_for(&prefetcher, 0);
            let error = prefetcher.get(0).unwrap_err().to_string();
            assert!(error.contains(&format!("since it was indexed: {what}")), "{error}");
        }
    }
}
