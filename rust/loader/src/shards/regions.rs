//! A shard's samples by place alone: four bytes each, so that a billion of them need no memory for their keys.
//!
//! A sample's region begins with its first member's header and ends where the next sample's begins. Members and key are
//! found again by reading the region's headers when the sample is read.

use std::ops::Range;

/// Bytes of a header; everything in an archive begins at a multiple of it.
pub const BLOCK: u64 = 512;
/// In place of a number of samples: it is known once the shard is here.
pub const UNKNOWN_LENGTH: u32 = u32::MAX;

/// Where a shard's samples begin, in blocks of 512 bytes, and behind them where the last one ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions(Box<[u32]>);

impl Regions {
    /// Samples that begin at these blocks, and behind them the block where the last one ends; nothing where there is none, or
    /// the numbers do not rise.
    #[must_use]
    pub fn new(places: Vec<u32>) -> Option<Self> {
        let sound = !places.is_empty() && places.is_sorted();
        sound.then(|| Self(places.into()))
    }

    /// As [`Self::new`], for numbers that are known to rise.
    pub(crate) fn from_rising(places: Vec<u32>) -> Self {
        debug_assert!(!places.is_empty() && places.is_sorted());
        Self(places.into())
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() - 1
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a sample, headers included; nothing where there is no such sample.
    #[must_use]
    pub fn get(&self, sample: u32) -> Option<Range<u64>> {
        let sample = sample as usize;
        let (start, end) = (self.0.get(sample)?, self.0.get(sample + 1)?);
        Some(u64::from(*start) * BLOCK..u64::from(*end) * BLOCK)
    }

    /// Appends it: what each number is above the one before, seven bits a byte, the lowest first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut before = 0;
        for &place in &self.0 {
            let mut rest = place - before;
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
            before = place;
        }
    }

    /// The regions of `count` samples from what [`Self::encode`] wrote; nothing where the bytes are something else.
    #[must_use]
    pub fn decode(bytes: &[u8], count: u32) -> Option<Self> {
        // A number takes a byte or more, so no claim costs more memory than four times what is there.
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
        (shift == 0 && places.len() == count as usize + 1).then(|| Self(places.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoding_gives_what_was_encoded(mut places in prop::collection::vec(any::<u32>(), 1..50)) {
            places.sort_unstable();
            let regions = Regions(places.into());
            let mut bytes = Vec::new();
            regions.encode(&mut bytes);
            prop_assert_eq!(Regions::decode(&bytes, regions.len() as u32), Some(regions.clone()));
            prop_assert_eq!(Regions::decode(&bytes, regions.len() as u32 + 1), None);
            prop_assert_eq!(Regions::decode(&bytes[..bytes.len() - 1], regions.len() as u32), None);
        }

        #[test]
        fn other_bytes_are_refused_or_rise(bytes in prop::collection::vec(any::<u8>(), 0..60), count in any::<u32>()) {
            for count in [count, count % 20] {
                if let Some(regions) = Regions::decode(&bytes, count) {
                    prop_assert!(regions.0.is_sorted());
                    prop_assert_eq!(regions.len(), count as usize);
                }
            }
        }
    }

    #[test]
    fn a_sample_takes_one_or_two_bytes_in_a_file_and_four_in_memory() {
        let regions = Regions((0..10_001).map(|sample| sample * 90).collect());
        let mut bytes = Vec::new();
        regions.encode(&mut bytes);
        assert_eq!(bytes.len(), 10_001);
        assert_eq!(size_of_val(&*regions.0), 40_004);
        assert_eq!(
            regions.get(9_999),
            Some(9_999 * 90 * 512..10_000 * 90 * 512)
        );
        assert_eq!(regions.get(10_000), None);
        assert_eq!(regions.get(u32::MAX), None);
    }
}
