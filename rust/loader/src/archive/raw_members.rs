//! Members of a sample that are handed on as they are.

use std::ops::Range;

/// A sample's members of the extensions that are kept, one behind another in memory that is used again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawMembers {
    bytes: Vec<u8>,
    /// Where each lies in `bytes`; nothing where the sample has none.
    places: Vec<Option<Range<usize>>>,
}

impl RawMembers {
    /// The member of the extension at this place of the list; nothing where the sample has none.
    #[must_use]
    pub fn member(&self, place: usize) -> Option<&[u8]> {
        let place = self.places.get(place)?.clone()?;
        self.bytes.get(place)
    }

    /// Forgets everything but the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }

    /// Takes the next extension's member.
    pub(crate) fn push(&mut self, member: Option<&[u8]>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(member.unwrap_or_default());
        self.places.push(member.map(|_| start..self.bytes.len()));
    }

    /// Room for the next extension's member, to be filled by the caller.
    pub(crate) fn room(&mut self, size: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + size, 0);
        self.places.push(Some(start..start + size));
        &mut self.bytes[start..]
    }
}
