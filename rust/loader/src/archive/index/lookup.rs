//! Matches the shards of a list with the entries of an index.

use std::collections::HashMap;
use std::path;

use crate::shards::Location;

/// The entry with the same absolute path, or with the same address apart from secrets.
pub fn find(entries: &[Location], shards: &[Location]) -> Vec<Option<u32>> {
    let name = |location: &Location| match location {
        Location::File(path) => path::absolute(path).unwrap_or_else(|_| path.clone()),
        Location::Url(_) | Location::Pipe(_) => location.without_secrets().into(),
    };
    let names: Vec<_> = entries.iter().map(name).collect();
    let places: HashMap<_, u32> = names.iter().zip(0..).collect();
    let place_of = |(number, shard): (usize, &Location)| {
        let name = name(shard);
        // Usually the same shards in the same order. A shard may be listed twice.
        let is_here = names.get(number) == Some(&name);
        if is_here { Some(number as u32) } else { places.get(&name).copied() }
    };
    shards.iter().enumerate().map(place_of).collect()
}
