//! Matches the shards of a list with the entries of an index.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::shards::Location;

/// The entry with the same location apart from secrets, or with the same absolute path.
pub fn find(entries: &[Location], shards: &[Location]) -> Vec<Option<u32>> {
    let names: Vec<String> = shards.iter().map(Location::without_secrets).collect();
    // Older indexes hold locations as written.
    let stored: Vec<String> = entries.iter().map(Location::without_secrets).collect();
    let same =
        |(place, name): (usize, &String)| (stored.get(place)? == name).then_some(place as u32);
    // Usually the index has the same shards in the same order.
    let mut found: Vec<Option<u32>> = names.iter().enumerate().map(same).collect();
    if found.iter().any(Option::is_none) {
        let places: HashMap<&String, u32> = stored.iter().zip(0..).collect();
        for (found, name) in found.iter_mut().zip(&names) {
            *found = found.or_else(|| places.get(name).copied());
        }
    }
    if found.iter().any(Option::is_none) {
        let paths: HashMap<PathBuf, u32> = (entries.iter().zip(0..))
            .filter_map(|(entry, place)| match entry {
                Location::File(path) => Some((absolute(path), place)),
                Location::Url(_) | Location::Pipe(_) => None,
            })
            .collect();
        for (found, shard) in found.iter_mut().zip(shards) {
            if let (None, Location::File(path)) = (&found, shard) {
                *found = paths.get(&absolute(path)).copied();
            }
        }
    }
    found
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
