//! Entropy-coded data: takes out the stuffed zeros, and finds the end.

use super::bits::PADDING;

/// Reused buffers.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// The data without byte stuffing. Padding follows each part between restarts.
    pub(super) bytes: Vec<u8>,
    /// The end of each part, padding included.
    pub(super) parts: Vec<usize>,
}

impl Data {
    /// Copies the bytes without the zero after each 0xFF, up to the first marker that is not a restart. Returns that marker and
    /// its position. `None` if the restart markers are out of order, or the bytes end first.
    #[inline(always)]
    pub(super) fn fill(&mut self, source: &[u8]) -> Option<(u8, usize)> {
        const CHUNK: usize = 32;
        self.parts.clear();
        let out = &mut self.bytes;
        // The padding is longer than the two bytes of a restart marker that it replaces. A file of only markers has few bits.
        let needed = source.len() + CHUNK + PADDING;
        if out.len() < needed {
            out.resize(needed, 0);
        }
        let (mut at, mut length, mut restart) = (0, 0, 0xD0);
        loop {
            while let Some(chunk) = source.get(at..).and_then(|rest| rest.first_chunk::<CHUNK>()) {
                *out.get_mut(length..)?.first_chunk_mut::<CHUNK>()? = *chunk;
                let plain = if chunk.iter().fold(false, |found, &byte| found | (byte == 0xFF)) {
                    chunk.iter().position(|&byte| byte == 0xFF).unwrap_or(CHUNK)
                } else {
                    CHUNK
                };
                (at, length) = (at + plain, length + plain);
                if plain < CHUNK {
                    break;
                }
            }
            match (source.get(at)?, source.get(at + 1)) {
                (0xFF, Some(0)) => {
                    *out.get_mut(length)? = 0xFF;
                    (at, length) = (at + 2, length + 1);
                }
                (0xFF, Some(&marker)) => {
                    out.get_mut(length..length + PADDING)?.fill(0);
                    length += PADDING;
                    self.parts.push(length);
                    if !(0xD0..=0xD7).contains(&marker) {
                        return Some((marker, at));
                    }
                    if marker != restart {
                        return None;
                    }
                    restart = 0xD0 | (restart + 1) & 7;
                    at += 2;
                    if out.len() < length + (source.len() - at) + CHUNK + PADDING {
                        out.resize(length + (source.len() - at) + CHUNK + PADDING, 0);
                    }
                }
                (&byte, _) => {
                    *out.get_mut(length)? = byte;
                    (at, length) = (at + 1, length + 1);
                }
            }
        }
    }
}
