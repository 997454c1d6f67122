//! Stamps of shards that are not read, and copying one shard to a file.

use std::sync::atomic::AtomicBool;

use crate::server::{MIB, Page, Reply, Server, config, noise};
use prolip_loader::error::Error;
use prolip_loader::remote::{examine, fetch_into};
use prolip_loader::shards::{Location, Stamp, Version};

fn stamps(shards: &[Location]) -> Result<Vec<Stamp>, Error> {
    let found = examine(shards.to_vec(), &config(), &AtomicBool::new(false))?;
    assert!(found.iter().zip(shards).all(|((found, _), shard)| found == shard));
    Ok(found.into_iter().map(|(_, stamp)| stamp).collect())
}

#[test]
fn the_stamp_of_a_shard_needs_one_byte_of_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.tar"), [7; 99]).unwrap();
    let local = Location::File(folder.path().join("b.tar"));
    for ranges in [true, false] {
        let page = Page::new(noise(3 * MIB, 1), "\"one\"");
        // The first request fails.
        let server = Server::start(vec![("a.tar", page)], ranges, |request| {
            if request.number == 0 { Reply::Status(503, String::new()) } else { Reply::Good }
        });
        let shards = [Location::Url(server.url("a.tar")), local.clone()];
        let found = stamps(&shards).unwrap();
        assert_eq!(found[0].size, 3 * MIB as u64);
        assert_eq!(found[0].version, Version::ETag("\"one\"".into()));
        assert_eq!(found[1], Stamp::of(&local).unwrap());
        let asked: Vec<_> = server.requests().iter().map(|r| r.range).collect();
        assert_eq!(asked, [Some((0, 0)); 2]);
    }
}

#[test]
fn a_missing_shard_has_no_stamp_and_is_named() {
    let server = Server::start(Vec::new(), true, |_| Reply::Good);
    let error = stamps(&[Location::Url(server.url("a.tar"))]).unwrap_err();
    assert!(error.to_string().contains("a.tar: the server answers 404"), "{error}");
    let error = stamps(&[Location::File("/nowhere/b.tar".into())]).unwrap_err();
    assert!(error.to_string().contains("shard /nowhere/b.tar: cannot open"), "{error}");
    let error = stamps(&[Location::Pipe("cat a.tar".to_owned())]).unwrap_err();
    assert!(error.to_string().contains("allow_pipe"), "{error}");
}

#[test]
fn a_shard_is_unpacked_into_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, out) = (noise(9 * MIB, 2), folder.path().join("out"));
    let packed = zstd::encode_all(&*bytes, 1).unwrap();
    std::fs::write(folder.path().join("c.tar.zst"), &packed).unwrap();
    let pages = vec![
        ("a.tar", Page::new(bytes.clone(), "\"a\"")),
        ("b.tar.zst", Page::new(packed, "\"b\"")),
    ];
    let server = Server::start(pages, true, |_| Reply::Good);
    for shard in [
        Location::Url(server.url("a.tar")),
        Location::Url(server.url("b.tar.zst")),
        Location::File(folder.path().join("c.tar.zst")),
    ] {
        fetch_into(&shard, &out, &config(), &AtomicBool::new(false)).unwrap();
        assert!(std::fs::read(&out).unwrap() == bytes, "{shard}");
    }
    // A shard may be copied onto itself.
    let own = Location::File(out.clone());
    fetch_into(&own, &out, &config(), &AtomicBool::new(false)).unwrap();
    assert!(std::fs::read(&out).unwrap() == bytes);
    let nowhere = folder.path().join("no/out");
    let shard = Location::Url(server.url("a.tar"));
    let error = fetch_into(&shard, &nowhere, &config(), &AtomicBool::new(false)).unwrap_err();
    let expected = format!(
        "cannot be kept: No such file or directory (os error 2); the file is {}, where ",
        nowhere.display()
    );
    assert!(error.here && error.to_string().contains(&expected), "{error}");
}
