//! Members of a sample that are returned as raw bytes.

use std::ops::Range;

/// Bytes that a buffer may keep whatever its next use.
const KEPT: usize = 64 << 10;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawMembers {
    bytes: Vec<u8>,
    /// Where each member is in `bytes`; `None` if the sample does not have it.
    places: Vec<Option<Range<usize>>>,
}

impl RawMembers {
    /// By its extension's place in the list.
    pub fn member(&self, place: usize) -> Option<&[u8]> {
        let place = self.places.get(place)?.clone()?;
        self.bytes.get(place)
    }

    /// Clears, keeping capacity. The memory of a far larger sample is freed: every row of every batch would come to one in the end.
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT && self.bytes.capacity() / 4 > self.bytes.len() {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.places.clear();
    }

    pub(crate) fn push(&mut self, member: Option<&[u8]>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(member.unwrap_or_default());
        self.places.push(member.map(|_| start..self.bytes.len()));
    }

    pub(crate) fn room(&mut self, size: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + size, 0);
        self.places.push(Some(start..start + size));
        &mut self.bytes[start..]
    }
}
