//! Matches the shards of a list with the entries of an index.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::format::Entry;
use crate::shards::Location;

/// The entry of each shard: the one with the same location as written, or with the same absolute path.
pub fn find(entries: &[Entry], shards: &[Location]) -> Vec<Option<u32>> {
    let names: Vec<String> = shards.iter().map(Location::written).collect();
    let same = |(place, name): (usize, &String)| {
        let entry = entries.get(place)?;
        (*entry.location == **name).then_some(place as u32)
    };
    // Usually the index has the same shards in the same order.
    let mut found: Vec<Option<u32>> = names.iter().enumerate().map(same).collect();
    if found.iter().any(Option::is_none) {
        let written: HashMap<&str, u32> = numbered(entries, |entry| Some(&*entry.location));
        for (found, name) in found.iter_mut().zip(&names) {
            *found = found.or_else(|| written.get(&**name).copied());
        }
    }
    if found.iter().any(Option::is_none) {
        let paths: HashMap<PathBuf, u32> =
            numbered(entries, |entry| match Location::of(&entry.location) {
                Location::File(path) => Some(absolute(&path)),
                Location::Url(_) | Location::Pipe(_) => None,
            });
        for (found, shard) in found.iter_mut().zip(shards) {
            if let (None, Location::File(path)) = (&found, shard) {
                *found = paths.get(&absolute(path)).copied();
            }
        }
    }
    found
}

fn numbered<'entries, K: std::hash::Hash + Eq>(
    entries: &'entries [Entry],
    key: impl Fn(&'entries Entry) -> Option<K>,
) -> HashMap<K, u32> {
    let keys = entries.iter().map(key).zip(0..);
    keys.filter_map(|(key, place)| Some((key?, place))).collect()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
