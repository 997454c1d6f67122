//! Where the samples of a shard are. Only offsets are stored, four bytes per sample, so that a billion samples fit in memory. A
//! region goes from the header of the sample's first member to the next region. Key and members are read again from it, with the
//! sample.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a tar block. Headers and data start at multiples of it.
pub const BLOCK: u64 = 512;
/// Of a shard that has not been fetched.
pub const UNKNOWN_LENGTH: u32 = u32::MAX;

/// Where each sample starts and the last one ends, in blocks of 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    places: Box<[u32]>,
    /// Those that are read; `None` for all.
    rows: Option<Arc<[u32]>>,
}

/// The samples of a shard that are read.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The shard's [`Fingerprint`] when they were chosen; empty if unknown.
    pub stamp: String,
    /// Ascending. A sample that an epoch reads several times is there as often.
    pub rows: Arc<[u32]>,
}

impl Chosen {
    /// An error if the shard is not the one that they were chosen from.
    pub fn check(&self, now: Fingerprint) -> Result<(), String> {
        let (stamp, last, found) =
            (&self.stamp, self.rows.last().map_or(0, |&row| row), now.to_string());
        if (stamp.is_empty() || *stamp == found) && (last < now.samples || self.rows.is_empty()) {
            return Ok(());
        }
        Err(format!(
            "must be as it was when row {last} was chosen, with the stamp {stamp:?} (got {found:?})"
        ))
    }
}

/// A fingerprint of a shard's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    pub samples: u32,
    /// CRC-32 of the encoded regions.
    pub crc: u32,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{:08x}", self.samples, self.crc)
    }
}

impl Regions {
    pub fn new(places: Vec<u32>) -> Self {
        assert!(!places.is_empty() && places.is_sorted(), "no regions");
        Self { places: places.into(), rows: None }
    }

    /// Of the chosen samples alone; of all, if nothing was chosen.
    pub fn of(self, chosen: Option<&Chosen>) -> Self {
        Self { rows: chosen.map(|chosen| Arc::clone(&chosen.rows)), ..self }
    }

    pub fn len(&self) -> usize {
        self.rows.as_ref().map_or(self.places.len() - 1, |rows| rows.len())
    }

    pub fn row(&self, sample: u32) -> Option<u32> {
        self.rows.as_ref().map_or(Some(sample), |rows| rows.get(sample as usize).copied())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The byte range of a sample, headers included. `None` if there is no such sample.
    pub fn get(&self, sample: u32) -> Option<Range<u64>> {
        let row = self.row(sample)? as usize;
        let (start, end) = (self.places.get(row)?, self.places.get(row + 1)?);
        Some(u64::from(*start) * BLOCK..u64::from(*end) * BLOCK)
    }

    /// The same for every copy of a shard, packed or not.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        Fingerprint { samples: self.places.len() as u32 - 1, crc: crc32fast::hash(&bytes) }
    }

    /// Where the shard's last sample ends, in bytes.
    pub fn end(&self) -> u64 {
        self.places.last().map_or(0, |&end| u64::from(end) * BLOCK)
    }

    /// The differences of the numbers as varints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut before = 0;
        for &place in &self.places {
            put_varint(out, u64::from(place - before));
            before = place;
        }
    }

    /// `None` if [`Self::encode`] did not write these bytes.
    pub fn decode(bytes: &[u8], count: u32) -> Option<Self> {
        // Each number takes at least one byte, so a wrong count allocates at most four times the input.
        if count as usize >= bytes.len() {
            return None;
        }
        let mut places = Vec::with_capacity(count as usize + 1);
        let (mut place, mut rest, mut shift) = (0u32, 0u32, 0u32);
        for &byte in bytes {
            let bits = u32::from(byte & 0x7f);
            if shift > 28 || (shift == 28 && bits > 0xf) {
                return None;
            }
            rest |= bits << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                place = place.checked_add(rest)?;
                places.push(place);
                (rest, shift) = (0, 0);
            }
        }
        (shift == 0 && places.len() == count as usize + 1).then(|| Self::new(places))
    }
}

/// With seven bits per byte, lowest first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
#[path = "regions_tests.rs"]
mod tests;
