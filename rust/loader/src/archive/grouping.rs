//! Groups the members of an archive into samples, as webdataset does.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::tar::Member;

/// If a sample has several images, the first extension of this list is used, as in the official training.
pub const IMAGE_EXTENSIONS: [&str; 4] = ["jpg", "png", "jpeg", "webp"];

const USUAL_MEMBERS: usize = 1000;

/// Where a member's bytes are in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub size: u64,
}

/// Splits a member's name into key and extension, at the first dot after the last slash.
///
/// `None` if there is no such dot, or nothing before it. As by webdataset's regular expression, a hidden file in a folder without
/// dots has the folder, with its slash, as key; and slashes after a line break do not separate folders.
pub fn split_name(name: &str) -> Option<(&str, &str)> {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = last + name[last..].find('.')?;
    let line = name.find('\n').unwrap_or(name.len());
    let folders = &name[..last.min(line)];
    let mut start = folders.rfind('/').map_or(0, |slash| slash + 1);
    if start == dot {
        let folder = folders.strip_suffix('/')?;
        start = folder.rfind('/').map_or(0, |slash| slash + 1);
    }
    let plain = !name[start..dot].contains('.');
    plain.then(|| (&name[..dot], &name[dot + 1..]))
}

/// Members whose first part is in double underscores describe the shard, not a sample.
pub fn is_meta(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or(name);
    first.strip_prefix("__").is_some_and(|rest| rest.ends_with("__"))
}

/// `None` if it belongs to no sample.
fn key_of(name: &str) -> Option<(&str, &str)> {
    split_name(name).filter(|_| !is_meta(name))
}

/// Finds where samples begin. Consecutive members with the same key are one sample, which never continues in the next shard.
#[derive(Debug, Default)]
pub struct Grouper {
    key: String,
}

impl Grouper {
    pub fn begins(&mut self, name: &str) -> bool {
        match key_of(name) {
            Some((key, _)) if self.key != key => {
                self.key.clear();
                self.key.push_str(key);
                true
            }
            _ => false,
        }
    }
}

/// Reused for one sample after another.
#[derive(Debug, Default)]
pub struct Sample {
    /// Empty before the first member. No key is empty.
    key: String,
    /// Hashes of the extensions so far. Among samples with a million members, one in 30 million would have a collision.
    extensions: HashSet<u64>,
    hasher: RandomState,
    lower: String,
    image_rank: usize,
    pub image: Option<Span>,
    /// The format of an image member that only `prolip data build` reads.
    pub convertible: Option<&'static str>,
    pub txt: Option<Span>,
    pub json: Option<Span>,
    extra_extensions: Vec<String>,
    /// In the order of `extra_extensions`.
    pub extra: Vec<Option<Span>>,
    /// An extension that occurs twice, so that the sample cannot be used.
    pub duplicate: Option<String>,
}

impl Sample {
    /// An empty sample that also collects members with these extensions, in lower case.
    pub fn with_extra(extensions: &[String]) -> Self {
        Self { extra_extensions: extensions.to_vec(), ..Self::default() }
    }

    pub fn clear(&mut self) {
        self.key.clear();
        if self.extensions.capacity() > USUAL_MEMBERS {
            self.extensions = HashSet::new();
        }
        self.extensions.clear();
        self.image_rank = IMAGE_EXTENSIONS.len();
        (self.image, self.txt, self.json, self.duplicate) = (None, None, None, None);
        self.convertible = None;
        self.extra.clear();
        self.extra.resize(self.extra_extensions.len(), None);
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns `false` if the member belongs to the next sample, so this one is complete.
    pub fn push(&mut self, member: &Member<'_>) -> bool {
        let Some((key, extension)) = key_of(member.name) else {
            return true;
        };
        if self.key.is_empty() {
            self.key.push_str(key);
        } else if self.key != key {
            return false;
        }
        let span = Span { offset: member.offset, size: member.size };
        self.add(extension, span);
        true
    }

    fn add(&mut self, extension: &str, span: Span) {
        self.lower.clear();
        if extension.is_ascii() {
            self.lower.push_str(extension);
            self.lower.make_ascii_lowercase();
        } else {
            self.lower.push_str(&extension.to_lowercase());
        }
        let extension = &*self.lower;
        if !self.extensions.insert(self.hasher.hash_one(extension)) {
            self.duplicate.get_or_insert_with(|| extension.to_owned());
            return;
        }
        if let Some(place) = self.extra_extensions.iter().position(|extra| extra == extension) {
            self.extra[place] = Some(span);
        }
        match extension {
            "txt" => self.txt = Some(span),
            "json" => self.json = Some(span),
            "gif" => self.convertible = Some("GIF"),
            "bmp" => self.convertible = Some("BMP"),
            _ => {
                let rank = IMAGE_EXTENSIONS.iter().position(|&known| known == extension);
                if let Some(rank) = rank.filter(|&rank| rank < self.image_rank) {
                    self.image_rank = rank;
                    self.image = Some(span);
                }
            }
        }
    }
}
