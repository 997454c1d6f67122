//! The rules of the house: which room may use which. Files name another room as `crate::ROOM`. Tests may use anything.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, by floor: a room may use those on lower floors, and none on its own or above.
const FLOORS: [&[&str]; 5] = [
    &["pipeline"],
    &["order", "archive", "text"],
    &["image", "remote"],
    &["shards"],
    &["config", "error", "rng", "buffer", "os"],
];
/// The one arrow between rooms of a floor.
const SAME_FLOOR: (&str, &str) = ("config", "error");

/// The product's files with their room and their code without comments.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.ends_with("tests") && name != "lib" {
                let room: PathBuf = path.strip_prefix(&root).unwrap().iter().take(1).collect();
                let text = fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let room = room.with_extension("").to_str().unwrap().to_owned();
                found.push((room, code.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    found
}

#[test]
fn rooms_import_only_from_lower_floors() {
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    for (room, code) in sources() {
        let here = floor(&room);
        assert!(here.is_some(), "{room} is not on the list of rooms");
        for path in code.split("crate::").skip(1) {
            let end = path.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let other = &path[..end.unwrap_or(path.len())];
            let allowed = other == room || floor(other) > here || (&*room, other) == SAME_FLOOR;
            assert!(allowed, "{room} uses {other}");
        }
    }
}
