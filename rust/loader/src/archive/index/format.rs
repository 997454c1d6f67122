//! The binary format of index files.
//!
//! ```text
//! head     "PROLIPIX" | version u32 | shards u32 | samples u64 | table's offset u64 | its length u64 | its CRC-32 u32
//! regions  of shard 0, of shard 1, …                                       (`Regions::encode`)
//! table    for each shard:
//!            length of its location | location | samples | bytes of its regions | their CRC-32 u32
//!            size | 0, or 1 and its modification time in ns since 1970 i64, or 2 and length of its ETag | ETag
//! ```
//! Numbers without a type have seven bits per byte, lowest first. The others are little endian.

use crate::error::IndexError;
use crate::shards::{Stamp, Version, put_varint};

/// Size of the head in bytes.
pub const HEAD: usize = 44;
const MAGIC: &[u8; 8] = b"PROLIPIX";
const VERSION: u32 = 1;
/// Maximum length of a location or an ETag in bytes.
const MAX_TEXT: u64 = 1 << 16;

/// The head of an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of shards.
    pub shards: u32,
    /// Number of samples.
    pub samples: u64,
    /// Offset of the table, after all regions.
    pub table: u64,
    /// Length of the table in bytes.
    pub length: u64,
    /// CRC-32 of the table.
    pub crc: u32,
}

/// One shard in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Location of the shard when the index was made, without secrets.
    pub location: Box<str>,
    /// Number of samples.
    pub count: u32,
    /// Offset of its regions in the index file.
    pub offset: u64,
    /// Length of its regions in bytes.
    pub length: u32,
    /// CRC-32 of its regions.
    pub crc: u32,
    /// Identifies this version of the shard.
    pub stamp: Stamp,
}

impl Head {
    /// Parses the first bytes of an index file.
    ///
    /// # Errors
    /// The file is not an index, or has another format version.
    pub fn parse(bytes: &[u8; HEAD]) -> Result<Self, IndexError> {
        if &bytes[..8] != MAGIC {
            return Err(IndexError::NotAnIndex);
        }
        let mut rest = Bytes(&bytes[8..]);
        match rest.u32()? {
            VERSION => {}
            version => return Err(IndexError::Version(version)),
        }
        Ok(Self {
            shards: rest.u32()?,
            samples: rest.u64()?,
            table: rest.u64()?,
            length: rest.u64()?,
            crc: rest.u32()?,
        })
    }

    /// The first bytes of an index file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend(self.shards.to_le_bytes());
        out.extend(self.samples.to_le_bytes());
        out.extend(self.table.to_le_bytes());
        out.extend(self.length.to_le_bytes());
        out.extend(self.crc.to_le_bytes());
        out
    }
}

impl Entry {
    /// Appends the entry. Its offset is not stored: it follows from the entries before.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, &self.location);
        put_varint(out, u64::from(self.count));
        put_varint(out, u64::from(self.length));
        out.extend(self.crc.to_le_bytes());
        put_varint(out, self.stamp.size);
        match &self.stamp.version {
            Version::Unknown => out.push(0),
            Version::Modified(time) => {
                out.push(1);
                out.extend(time.to_le_bytes());
            }
            Version::ETag(tag) => {
                out.push(2);
                put_text(out, tag);
            }
        }
    }
}

/// Parses a table. The bytes are untrusted: everything is checked before use, and no claimed size allocates more than
/// the input.
///
/// # Errors
/// The bytes are not a complete table.
pub fn parse_table(bytes: &[u8]) -> Result<Vec<Entry>, IndexError> {
    let mut rest = Bytes(bytes);
    let mut entries = Vec::new();
    let mut offset = HEAD as u64;
    while !rest.0.is_empty() {
        let location = rest.text()?.into();
        let count = u32::try_from(rest.number()?).map_err(|_| DAMAGED)?;
        let length = u32::try_from(rest.number()?).map_err(|_| DAMAGED)?;
        // An entry takes at least one byte.
        if length <= count {
            return Err(DAMAGED);
        }
        let crc = rest.u32()?;
        let size = rest.number()?;
        let version = match rest.take(1)?[0] {
            0 => Version::Unknown,
            1 => Version::Modified(rest.u64()? as i64),
            2 => Version::ETag(rest.text()?.into()),
            _ => return Err(DAMAGED),
        };
        entries.push(Entry {
            location,
            count,
            offset,
            length,
            crc,
            stamp: Stamp { size, version },
        });
        offset = offset.checked_add(u64::from(length)).ok_or(DAMAGED)?;
    }
    Ok(entries)
}

const DAMAGED: IndexError = IndexError::Damaged("its table cannot be read");

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend(text.as_bytes());
}

/// The bytes still to be parsed.
struct Bytes<'bytes>(&'bytes [u8]);

impl<'bytes> Bytes<'bytes> {
    fn take(&mut self, length: usize) -> Result<&'bytes [u8], IndexError> {
        self.0.split_off(..length).ok_or(DAMAGED)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        self.take(N)?.try_into().map_err(|_| DAMAGED)
    }

    fn u32(&mut self) -> Result<u32, IndexError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, IndexError> {
        self.array().map(u64::from_le_bytes)
    }

    fn number(&mut self) -> Result<u64, IndexError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DAMAGED)
    }

    fn text(&mut self) -> Result<&'bytes str, IndexError> {
        let length = self.number()?;
        if length > MAX_TEXT {
            return Err(DAMAGED);
        }
        std::str::from_utf8(self.take(length as usize)?).map_err(|_| DAMAGED)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let version = prop_oneof![
            Just(Version::Unknown),
            any::<i64>().prop_map(Version::Modified),
            ".{0,20}".prop_map(|tag: String| Version::ETag(tag.into())),
        ];
        let lengths = (0u32..1 << 20, 1u32..1 << 20);
        (".{0,40}", lengths, any::<u32>(), any::<u64>(), version).prop_map(
            |(location, (count, more), crc, size, version)| Entry {
                location: location.into(),
                count,
                offset: 0,
                length: count + more,
                crc,
                stamp: Stamp { size, version },
            },
        )
    }

    proptest! {
        #[test]
        fn an_encoded_table_parses_equal(mut entries in prop::collection::vec(entry(), 0..20)) {
            let (mut bytes, mut offset) = (Vec::new(), HEAD as u64);
            for entry in &mut entries {
                entry.offset = offset;
                offset += u64::from(entry.length);
                entry.encode(&mut bytes);
            }
            prop_assert_eq!(parse_table(&bytes).unwrap(), entries);
            if let Some(cut) = bytes.len().checked_sub(1) {
                prop_assert!(parse_table(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn parsing_any_bytes_does_not_panic(
            entries in prop::collection::vec(entry(), 0..3),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            noise in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = Vec::new();
            entries.iter().for_each(|entry| entry.encode(&mut bytes));
            bytes.extend(noise);
            for (place, byte) in changes {
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
            }
            if let Ok(entries) = parse_table(&bytes) {
                prop_assert!(entries.len() * 6 <= bytes.len());
            }
        }
    }

    #[test]
    fn the_head_is_checked_and_parses_equal() {
        let head = Head { shards: 3, samples: 1 << 40, table: 99, length: 7, crc: 5 };
        let bytes: [u8; HEAD] = head.encode().try_into().unwrap();
        assert_eq!(Head::parse(&bytes).unwrap(), head);
        let changed = |place: usize| {
            let mut bytes = bytes;
            bytes[place] ^= 1;
            Head::parse(&bytes).unwrap_err()
        };
        assert!(matches!(changed(0), IndexError::NotAnIndex));
        assert!(matches!(changed(8), IndexError::Version(0)));
    }
}
