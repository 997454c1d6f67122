//! Loaders of a selection over local shards and over remote, compressed ones, and over shards that have changed.

use std::path::Path;

use crate::common::{Content, config, open, open_chosen, read_all, write_shards};
use crate::compressed::gzip;
use crate::index::make_of;
use crate::server::{Page, Reply, Server};
use prolip_loader::config::{LastBatch, LoaderConfig, Mode};
use prolip_loader::error::Error;
use prolip_loader::order::Cursor;
use prolip_loader::pipeline::Selection;
use prolip_loader::shards::{Chosen, Location};

const ROWS: [&[u32]; 3] = [&[0, 3, 3, 6], &[2], &[8]];

/// One sample per batch, in the order of the files, without anything drawn.
fn evaluation(folder: &Path, shards: &[String]) -> LoaderConfig {
    let config = config(folder);
    LoaderConfig {
        shards: shards.to_vec(),
        augment: None,
        captions: config.captions[..1].to_vec(),
        mask: None,
        batch_size: 1,
        shuffle_window: 0,
        num_epochs: Some(1),
        last_batch: LastBatch::Keep,
        ..config
    }
}

fn select(shards: &[String], stamps: &[String]) -> Selection {
    let chosen =
        |(stamp, rows): (&String, &[u32])| Chosen { stamp: stamp.clone(), rows: rows.into() };
    let sources = shards.iter().map(|name| Location::of(name)).collect();
    (sources, stamps.iter().zip(ROWS).map(chosen).collect())
}

fn samples(config: &LoaderConfig, selection: Option<Selection>) -> Result<Vec<Content>, String> {
    let text = |error: &Error| format!("{}: {error}", error.shard().unwrap_or_default());
    let dataset = open_chosen(config.clone(), selection, 0, 1).map_err(|error| text(&error))?;
    let mut read = read_all(&dataset, Cursor::default()).map_err(|error| text(&error))?;
    read.iter_mut().for_each(|sample| sample.cursor = Cursor::default());
    Ok(read)
}

#[test]
fn chosen_samples_are_those_of_whole_shards_and_changed_shards_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_shards(folder, &[7, 3, 9]);
    let names = ["000.tar", "001.tar", "002.tar"];
    let local = names.map(|name| folder.join(name).to_str().unwrap().to_owned());
    let packed = names.map(|name| name.replace("tar", "tgz"));
    let page = |path: &String| Page::new(gzip(&std::fs::read(path).unwrap()), "\"1\"");
    let pages = packed.iter().map(String::as_str).zip(local.iter().map(page));
    let server = Server::start(pages.collect(), true, |_| Reply::Good);

    let whole = evaluation(folder, &local);
    let opened = open(whole.clone(), 0, 1).unwrap();
    let shards = opened.index.shards().iter();
    let stamps: Vec<_> = shards.map(|shard| shard.fingerprint.get().unwrap().to_string()).collect();
    let all = samples(&whole, None).unwrap();
    let expected = [0, 3, 3, 6, 7 + 2, 10 + 8].map(|place| all[place].clone());
    let old = [&stamps[0], "4-0", &stamps[2]].map(ToOwned::to_owned);
    for shards in [local.clone(), packed.map(|name| server.url(&name))] {
        let plain = evaluation(folder, &shards);
        let index = Some(make_of(folder, &select(&shards, &stamps).0).0.display().to_string());
        let own = LoaderConfig { shards: Vec::new(), selection: index.clone(), ..plain.clone() };
        for config in [&plain, &LoaderConfig { index, ..plain.clone() }, &own] {
            let read = samples(config, Some(select(&shards, &stamps))).unwrap();
            assert!(read == expected, "{shards:?}");
            let error = samples(config, Some(select(&shards, &old))).unwrap_err();
            let named = ["001.t", "4-0", &stamps[1]].map(|part| error.contains(part));
            assert_eq!(named, [true; 3], "{error}");
        }
    }
    let short = select(&local[1..], &[String::new()]);
    let error = samples(&whole, Some(short)).unwrap_err();
    assert!(error.contains("001.tar") && error.contains("row 6"), "{error}");

    // The second pattern has the weight 0, and the selection leaves the first shard out.
    let two = format!("{}/00{{0..1}}.tar", folder.display());
    let drawn = LoaderConfig {
        mode: Mode::Resampled,
        weights: vec![1.0, 0.0],
        ..evaluation(folder, &[two, local[2].clone()])
    };
    let (mut sources, mut chosen) = select(&local, &stamps);
    sources.remove(0);
    chosen.remove(0);
    let read = samples(&drawn, Some((sources, chosen))).unwrap();
    assert!(!read.is_empty() && read.iter().all(|sample| sample.keys == ["s1-2"]));
}
