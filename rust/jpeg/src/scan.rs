//! Decodes the entropy-coded data to coefficients, one row of units at a time.

use std::ops::Range;

use super::header::{JpegHeader, Sampling};
use super::huffman::{Bits, PADDING, Table, read_block};

/// Longest coefficients, in bits, of a file with 8-bit samples.
const DC_BITS: u8 = 11;
const AC_BITS: u8 = 10;

/// The coefficients of four neighbouring blocks of a plane. Row k of all four starts at `32 k`.
pub(super) type Group = [i16; 256];

/// Groups of each chroma plane in a strip. Few enough that the coefficients of a strip and the tables fit in the L1 cache. Not
/// fewer, because data just written in 2-byte stores stall a vector load.
const WIDTH: usize = 2;
/// Units whose coefficients are stored at a time.
const STRIP: usize = 4 * WIDTH;
/// Most groups of a strip, plus one that is only read from within the previous group.
const GROUPS: usize = 6 * WIDTH + 1;

/// Reused tables and buffers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    /// The data without byte stuffing. Padding follows each part between restarts.
    bytes: Vec<u8>,
    /// The end of each part, padding included.
    parts: Vec<usize>,
}

/// How the units of a row map to groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) sampling: Sampling,
    /// Units per row, and number of rows.
    pub(super) units: (usize, usize),
    /// Strips per row of units.
    pub(super) strips: usize,
}

impl Layout {
    pub(super) fn new(header: &JpegHeader) -> Self {
        let (across, down) = header.sampling.luma_blocks();
        let units = (
            (header.width as usize).div_ceil(8 * across),
            (header.height as usize).div_ceil(8 * down),
        );
        Self {
            sampling: header.sampling,
            units,
            strips: units.0.div_ceil(STRIP),
        }
    }

    /// The strips that contain these units of a row.
    pub(super) fn strips_of(&self, units: Range<usize>) -> Range<usize> {
        units.start / STRIP..units.end.div_ceil(STRIP)
    }

    /// Rows of blocks of a plane in a strip, groups per row, and index of its first group.
    pub(super) fn plane(&self, component: usize) -> (usize, usize, usize) {
        let (across, down) = self.sampling.luma_blocks();
        match component {
            0 => (down, across * WIDTH, 0),
            _ => (1, WIDTH, (down * across + component - 1) * WIDTH),
        }
    }

    /// Groups of a strip, over all planes.
    fn groups(&self) -> usize {
        let (across, down) = self.sampling.luma_blocks();
        (down * across + self.sampling.components() - 1) * WIDTH
    }
}

/// Reads all data. Passes the coefficients of each strip within the `wanted` rows and strips to `take`.
///
/// `None` if anything is wrong, up to the last bit before the end-of-image marker.
#[inline(always)]
pub(super) fn read(
    memory: &mut Memory,
    header: &JpegHeader,
    source: &[u8],
    wanted: (Range<usize>, Range<usize>),
    mut take: impl FnMut(&Layout, (usize, usize), &[Group]),
) -> Option<()> {
    let layout = Layout::new(header);
    let units = layout.units.0 * layout.units.1;
    let interval = match header.restart_interval {
        0 => units,
        interval => interval,
    };
    memory.unstuff(source.get(header.samples..)?)?;
    (memory.parts.len() == units.div_ceil(interval)).then_some(())?;
    memory.make_tables(header)?;
    let mut blocks = [Block::default(); 6];
    let blocks = list_blocks(&layout, &mut blocks);
    let components = header.components;
    // A missing component has table numbers 0, but table 0 may not exist.
    let mut tables = [(&memory.dc[0], &memory.ac[0]); 3];
    for (tables, component) in tables.iter_mut().zip(components) {
        *tables = (
            &memory.dc[usize::from(component.dc_table & 3)],
            &memory.ac[usize::from(component.ac_table & 3)],
        );
    }
    let luma = (tables[0].0.as_ref()?, tables[0].1.as_ref()?);
    let tables =
        tables.map(|(dc, ac)| (dc.as_ref().unwrap_or(luma.0), ac.as_ref().unwrap_or(luma.1)));
    let mut coefficients = [[0; 256]; GROUPS];
    let mut parts = memory.parts.iter();
    let (mut start, mut bits, mut left) = (0, Bits::new(&[0; PADDING]), 0);
    let mut predicted = [0; 3];
    for row in 0..layout.units.1 {
        for strip in 0..layout.strips {
            let keep = wanted.0.contains(&row) && wanted.1.contains(&strip);
            for unit in 0..STRIP.min(layout.units.0 - strip * STRIP) {
                if left == 0 {
                    bits.at_end().then_some(())?;
                    let &end = parts.next()?;
                    (bits, start) = (Bits::new(memory.bytes.get(start..end)?), end);
                    (left, predicted) = (interval, [0; 3]);
                }
                left -= 1;
                for block in blocks {
                    let (dc, ac) = tables[block.component];
                    let predicted = &mut predicted[block.component];
                    let first = block.first + unit * block.step;
                    let first = first / 4 * 256 + first % 4 * 8;
                    let flat = coefficients.as_flattened_mut().get_mut(first..)?;
                    let out = flat.first_chunk_mut::<256>()?;
                    if keep {
                        read_block::<true>(&mut bits, dc, ac, predicted, out)?;
                    } else {
                        read_block::<false>(&mut bits, dc, ac, predicted, out)?;
                    }
                }
            }
            if keep {
                let groups = &mut coefficients[..layout.groups()];
                take(&layout, (row, strip), groups);
                groups.fill([0; 256]);
            }
        }
    }
    bits.at_end().then_some(())
}

/// A block of a unit.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    component: usize,
    /// Its index among the strip's blocks (four per group) in the first unit, and the step to the next unit.
    first: usize,
    step: usize,
}

/// The blocks of a unit, in file order.
fn list_blocks<'a>(layout: &Layout, blocks: &'a mut [Block; 6]) -> &'a [Block] {
    let mut count = 0;
    for component in 0..layout.sampling.components() {
        let (down, groups, first) = layout.plane(component);
        let across = groups / WIDTH;
        for y in 0..down {
            for number in 0..across {
                blocks[count] = Block {
                    component,
                    first: (first + y * groups) * 4 + number,
                    step: across,
                };
                count += 1;
            }
        }
    }
    &blocks[..count]
}

impl Memory {
    fn make_tables(&mut self, header: &JpegHeader) -> Option<()> {
        for component in &header.components[..header.sampling.components()] {
            let (dc, ac) = (
                usize::from(component.dc_table),
                usize::from(component.ac_table),
            );
            Table::make(self.dc.get_mut(dc)?, header.dc_codes(dc)?, DC_BITS, false)?;
            Table::make(self.ac.get_mut(ac)?, header.ac_codes(ac)?, AC_BITS, true)?;
        }
        Some(())
    }

    /// Copies the entropy-coded bytes without the zeros after each 0xFF. The restart markers must be in order, followed by the
    /// end-of-image marker.
    #[inline(always)]
    fn unstuff(&mut self, source: &[u8]) -> Option<()> {
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
            while let Some(chunk) = source
                .get(at..)
                .and_then(|rest| rest.first_chunk::<CHUNK>())
            {
                *out.get_mut(length..)?.first_chunk_mut::<CHUNK>()? = *chunk;
                let plain = if chunk
                    .iter()
                    .fold(false, |found, &byte| found | (byte == 0xFF))
                {
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
                    if marker == 0xD9 {
                        return Some(());
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
