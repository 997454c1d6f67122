//! Prefetched shards: downloaded in order, within the disk limit, once for all processes of a node.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{archive, member};
use crate::server::{MIB, Page, Reply, Request, Server, config, noise};
use prolip_loader::archive::scan_file;
use prolip_loader::config::StoreConfig;
use prolip_loader::remote::{Prefetcher, ShardProvider, ShardRequest};
use prolip_loader::shards::{Location, Stamp};

/// A shard of about `size` bytes with `number` + 1 samples.
fn shard(number: usize, size: usize) -> Vec<u8> {
    let samples: Vec<_> = (0..=number)
        .map(|sample| member(&format!("{sample}.jpg"), &noise(size / (number + 1), number as u64)))
        .collect();
    archive(&samples)
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
            })
        };
        let scan = |_, file: &File| scan_file(file, true);
        Prefetcher::open(config, Box::new(request_of), Box::new(scan)).unwrap()
    }

    fn first_requests(&self) -> Vec<String> {
        let first = |request: &Request| request.range.is_some_and(|(start, _)| start == 0);
        let requests = self.server.requests();
        requests.iter().filter(|r| first(r)).map(|r| r.path[1..].to_owned()).collect()
    }
}

/// Waits until a shard is ready, as a pipeline does: it asks again whenever something has changed.
fn wait_for(prefetcher: &Prefetcher, shard: u32) {
    let begun = Instant::now();
    while !prefetcher.is_ready(shard) {
        assert!(begun.elapsed() < Duration::from_secs(20), "shard {shard}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn content(prefetcher: &Prefetcher, shard: u32) -> Vec<u8> {
    let lent = prefetcher.get(shard).unwrap().expect("it is here");
    let mut bytes = vec![0; lent.file.metadata().unwrap().len() as usize];
    lent.file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn prefetched_shards_are_complete_and_have_their_lengths() {
    let lab = Lab::new(4, MIB, |_| Reply::Good);
    let prefetcher = lab.prefetcher(&config(), None);
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
    let config = StoreConfig { read_ahead_bytes: 7 * MIB as u64, ..config() };
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
    let begun = Instant::now();
    while lab.first_requests().len() < 5 && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
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
        ..config()
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
