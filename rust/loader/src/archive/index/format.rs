//! The binary format of index files.
//!
//! ```text
//! head     "PROLIPIX" | version u32 | shards u32 | samples u64 | table's offset u64 | its length u64 | its CRC-32 u32
//! regions  of shard 0, regions of shard 1, …                                (`Regions::encode`)
//! table    for each shard:
//!            length of its location | location | samples | bytes of its regions | their CRC-32 u32
//!            size | 0, or 1 and its modification time in ns since 1970 i64, or 2 and length of its ETag | ETag
//! ```
//! Numbers without a type have seven bits per byte, lowest first. The others are little endian.

use crate::error::IndexError;
use crate::shards::{Stamp, Version, put_varint};

pub const HEAD: usize = 44;
const MAGIC: &[u8; 8] = b"PROLIPIX";
const VERSION: u32 = 1;
/// Length of a location or an ETag in bytes.
const MAX_TEXT: u64 = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub shards: u32,
    pub samples: u64,
    /// Offset of the table, after all regions.
    pub table: u64,
    /// In bytes.
    pub length: u64,
    pub crc: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As it was when the index was made, without secrets.
    pub location: Box<str>,
    pub count: u32,
    /// Offset of its regions in the index file.
    pub offset: u64,
    /// In bytes.
    pub length: u32,
    /// CRC-32 of its regions.
    pub crc: u32,
    pub stamp: Stamp,
}

impl Head {
    pub fn parse(bytes: &[u8; HEAD]) -> Result<Self, IndexError> {
        if &bytes[..8] != MAGIC {
            return Err(IndexError::NotAnIndex);
        }
        let mut rest = Bytes(&bytes[8..]);
        let version = rest.u32()?;
        if version != VERSION {
            return Err(IndexError::Version(version));
        }
        Ok(Self {
            shards: rest.u32()?,
            samples: rest.u64()?,
            table: rest.u64()?,
            length: rest.u64()?,
            crc: rest.u32()?,
        })
    }

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
    /// Its offset is not stored: it follows from the entries before.
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

/// Returns the entries of a table and where the regions of the last one end. The bytes are untrusted: no claimed size allocates
/// more than the input.
pub fn parse_table(bytes: &[u8]) -> Result<(Vec<Entry>, u64), IndexError> {
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
        let end = offset.checked_add(length.into()).ok_or(DAMAGED)?;
        let size = rest.number()?;
        let changed = match rest.take(1)?[0] {
            0 => Version::Unknown,
            1 => Version::Modified(rest.u64()? as i64),
            2 => Version::ETag(rest.text()?.into()),
            _ => return Err(DAMAGED),
        };
        let stamp = Stamp { size, version: changed };
        entries.push(Entry { location, count, offset, length, crc, stamp });
        offset = end;
    }
    Ok((entries, offset))
}

const DAMAGED: IndexError = IndexError::Damaged("its table cannot be read");

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend(text.as_bytes());
}

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
#[path = "format_tests.rs"]
mod tests;
