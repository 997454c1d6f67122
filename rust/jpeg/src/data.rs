//! Entropy-coded data: takes out the stuffed zeros, and finds the end.

use std::ops::Range;

use super::bits::PADDING;
use super::buffer::first_bytes;

const CHUNK: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Data {
    /// Without byte stuffing, with padding after each part between restarts. All in reverse order, from the end of the buffer on:
    /// then eight bytes that are loaded as a number have the first byte at the top, and need no swap.
    reversed: Vec<u8>,
    /// The end of each part, padding included.
    pub(super) parts: Vec<usize>,
}

impl Data {
    /// Copies the bytes without the zero after each 0xFF, up to the first marker that is not a restart. Returns that marker and
    /// its position. `None` if restarts are missing or out of order, or the bytes end first.
    #[inline(always)]
    pub(super) fn fill(&mut self, source: &[u8], parts: usize) -> Option<(u8, usize)> {
        self.parts.clear();
        first_bytes(&mut self.reversed, source.len() + CHUNK + PADDING);
        let (mut at, mut length, mut restart) = (0, 0, 0xD0);
        loop {
            while let Some(window) =
                source.get(at..).and_then(|rest| rest.first_chunk::<{ CHUNK + 1 }>())
            {
                let chunk: &[u8; CHUNK] = window.first_chunk()?;
                let out = self.behind(length)?.last_chunk_mut()?;
                *out = *chunk;
                out.reverse();
                // Not `contains`, which is not compiled to vectors.
                if !chunk.iter().fold(false, |found, &byte| found | (byte == 0xFF)) {
                    (at, length) = (at + CHUNK, length + CHUNK);
                    continue;
                }
                let plain = plain_bytes(chunk);
                if window[plain + 1] == 0 {
                    (at, length) = (at + plain + 2, length + plain + 1);
                } else {
                    (at, length) = (at + plain, length + plain);
                    break;
                }
            }
            match (source.get(at)?, source.get(at + 1)) {
                (0xFF, Some(0)) => {
                    *self.behind(length)?.last_mut()? = 0xFF;
                    (at, length) = (at + 2, length + 1);
                }
                (0xFF, Some(&marker)) => {
                    *self.behind(length)?.last_chunk_mut()? = [0; PADDING];
                    length += PADDING;
                    self.parts.push(length);
                    if !(0xD0..=0xD7).contains(&marker) {
                        return (self.parts.len() == parts).then_some((marker, at));
                    }
                    // The padding is much longer than a marker: too many of them would take too much memory.
                    if marker != restart || self.parts.len() == parts {
                        return None;
                    }
                    restart = 0xD0 | (restart + 1) & 7;
                    at += 2;
                    self.make_room(length, source.len() - at);
                }
                (&byte, _) => {
                    *self.behind(length)?.last_mut()? = byte;
                    (at, length) = (at + 1, length + 1);
                }
            }
        }
    }

    /// In reverse order.
    pub(super) fn part(&self, range: Range<usize>) -> Option<&[u8]> {
        let behind = |length| self.reversed.len().checked_sub(length);
        self.reversed.get(behind(range.end)?..behind(range.start)?)
    }

    #[inline(always)]
    fn behind(&mut self, length: usize) -> Option<&mut [u8]> {
        let end = self.reversed.len().checked_sub(length)?;
        self.reversed.get_mut(..end)
    }

    fn make_room(&mut self, length: usize, more: usize) {
        let (had, needed) = (self.reversed.len(), length + more + CHUNK + PADDING);
        if had < needed {
            let needed = needed.max(2 * length);
            self.reversed.resize(needed, 0);
            self.reversed.copy_within(had - length..had, needed - length);
        }
    }
}

/// The number of bytes before the first 0xFF.
#[inline(always)]
fn plain_bytes(chunk: &[u8; CHUNK]) -> usize {
    const LOWEST: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST: u64 = LOWEST << 7;
    // Moves the bytes' highest bits side by side.
    const GATHER: u64 = 0x0002_0408_1020_4081;
    let mut found = 0;
    for (place, word) in chunk.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // Sets the highest bit of each 0xFF, and maybe of later bytes.
        let bits = (!word).wrapping_sub(LOWEST) & word & HIGHEST;
        found |= (bits.wrapping_mul(GATHER) >> 56) << (8 * place);
    }
    (found as u32).trailing_zeros() as usize
}
