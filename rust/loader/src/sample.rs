//! Members of an archive → samples, grouped as webdataset groups them.

use crate::tar::Member;

/// Extensions of pictures; where a sample has several, the one that stands first here is used, as the official
/// training does. GIF and BMP, which it does not look for, come last.
pub const IMAGE_EXTENSIONS: [&str; 6] = ["jpg", "png", "jpeg", "webp", "gif", "bmp"];

/// Where a member's bytes lie in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
}

/// Which sample: its shard's place in the list of shards, and its place in the shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleId {
    /// Place of the shard in the expanded list.
    pub shard: u32,
    /// Place in the shard, from 0.
    pub sample: u32,
}

impl SampleId {
    /// The number that keys the sample's draws.
    #[must_use]
    pub fn key(self) -> u64 {
        u64::from(self.shard) << 32 | u64::from(self.sample)
    }
}

/// What a shard holds of one sample.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// The members' common name, up to the first dot of its last part.
    pub key: Box<str>,
    /// The picture.
    pub image: Option<Span>,
    /// The member `.txt`.
    pub txt: Option<Span>,
    /// The member `.json`.
    pub json: Option<Span>,
    /// An extension that occurs twice; such a sample is not used.
    pub duplicate: Option<Box<str>>,
}

/// Splits a member's name in the sample's key and its extension: at the first dot behind the last slash.
///
/// Nothing where there is no such dot, or nothing before it. A hidden file in a folder without dots has the folder, slash
/// included, for its key: that is what webdataset's expression comes to.
#[must_use]
pub fn split_name(name: &str) -> Option<(&str, &str)> {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = last + name[last..].find('.')?;
    if dot == last {
        let folder = name[..last].strip_suffix('/')?;
        let folder = &folder[folder.rfind('/').map_or(0, |slash| slash + 1)..];
        if folder.contains('.') {
            return None;
        }
    }
    Some((&name[..dot], &name[dot + 1..]))
}

/// Members whose first part is wrapped in double underscores describe the shard, not a sample.
#[must_use]
pub fn is_meta(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or(name);
    first
        .strip_prefix("__")
        .is_some_and(|rest| rest.ends_with("__"))
}

/// Puts members together: consecutive ones with the same key are one sample.
#[derive(Debug, Default)]
pub struct Grouper {
    current: Option<Group>,
}

#[derive(Debug)]
struct Group {
    sample: Sample,
    image_rank: usize,
    extensions: Vec<Box<str>>,
}

impl Grouper {
    /// Takes a member; gives the sample before it when the member begins another one.
    pub fn push(&mut self, member: &Member) -> Option<Sample> {
        if is_meta(&member.name) {
            return None;
        }
        let (key, extension) = split_name(&member.name)?;
        let same = self
            .current
            .as_ref()
            .is_some_and(|group| *group.sample.key == *key);
        let finished = if same {
            None
        } else {
            self.current
                .replace(Group::new(key))
                .map(|group| group.sample)
        };
        if let Some(group) = &mut self.current {
            group.add(
                &extension.to_lowercase(),
                Span {
                    offset: member.offset,
                    size: member.size,
                },
            );
        }
        finished
    }

    /// The last sample of a shard: samples never continue in the next one.
    pub fn finish(&mut self) -> Option<Sample> {
        self.current.take().map(|group| group.sample)
    }
}

impl Group {
    fn new(key: &str) -> Self {
        let sample = Sample {
            key: key.into(),
            ..Sample::default()
        };
        Self {
            sample,
            image_rank: IMAGE_EXTENSIONS.len(),
            extensions: Vec::with_capacity(4),
        }
    }

    fn add(&mut self, extension: &str, span: Span) {
        if self.extensions.iter().any(|known| **known == *extension) {
            self.sample
                .duplicate
                .get_or_insert_with(|| extension.into());
            return;
        }
        self.extensions.push(extension.into());
        match extension {
            "txt" => self.sample.txt = Some(span),
            "json" => self.sample.json = Some(span),
            _ => {
                let rank = IMAGE_EXTENSIONS
                    .iter()
                    .position(|known| *known == extension);
                if let Some(rank) = rank.filter(|&rank| rank < self.image_rank) {
                    self.image_rank = rank;
                    self.sample.image = Some(span);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_as_webdataset_splits_them() {
        for (name, expected) in [
            ("a.jpg", Some(("a", "jpg"))),
            ("a.b.jpg", Some(("a", "b.jpg"))),
            ("dir.x/a.jpg", Some(("dir.x/a", "jpg"))),
            ("d/e/a.seg.png", Some(("d/e/a", "seg.png"))),
            ("a.", Some(("a", ""))),
            ("a", None),
            ("d.x/a", None),
            (".hidden", None),
            (".hidden.txt", None),
            ("d/.x.txt", Some(("d/", "x.txt"))),
            ("d.x/.x.txt", None),
            ("d.x/e/.x.txt", Some(("d.x/e/", "x.txt"))),
            ("/.x", Some(("/", "x"))),
            ("", None),
        ] {
            assert_eq!(split_name(name), expected, "{name}");
        }
    }

    #[test]
    fn meta_members_are_passed_over() {
        for (name, expected) in [
            ("__index__", true),
            ("__meta__/a.txt", true),
            ("__a.txt", false),
            ("a__", false),
            ("____", true),
            ("__a__.txt", false),
            ("d/__a__", false),
        ] {
            assert_eq!(is_meta(name), expected, "{name}");
        }
    }
}
