//! Servers that send endlessly, very slowly, or less than they say.
use crate::common::STORE;
use crate::server::{MIB, Reply, fetch, noise, one};
use prolip_loader::config::StoreConfig;
use prolip_loader::shards::Location;
use std::time::{Duration, Instant};

fn failure(config: &StoreConfig, location: &Location) -> String {
    fetch(config, location).unwrap_err().to_string()
}

#[test]
fn an_endless_body_is_stopped_at_the_size_limit() {
    let limited = StoreConfig { max_shard_bytes: 3 * MIB as u64, allow_pipe: true, ..STORE };
    let (server, location) = one(b"x", true, |_| Reply::Endless);
    let limit = "more bytes than store.max_shard_bytes = 3145728 allows (tried once)";
    let error = failure(&limited, &location);
    assert!(error.contains(limit), "{error}");
    // The buffers of the sockets come on top.
    assert!(server.endless_bytes() < 30 * MIB, "{}", server.endless_bytes());
    let error = failure(&limited, &Location::Pipe("yes".to_owned()));
    assert!(error.contains("it has more bytes than"), "{error}");
}

#[test]
fn a_server_that_sends_single_bytes_is_given_up() {
    let hasty = StoreConfig { timeout_s: 0.3, retries: 2, allow_pipe: true, ..STORE };
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
