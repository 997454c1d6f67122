//! Entropy-coded data to coefficients, one row of units at a time.

use std::ops::Range;

use super::bits::{Bits, Blocks, PADDING, Place};
use super::data::Data;
use super::header::{JpegHeader, Sampling};
use super::huffman::{PairTable, Symbols, Table, TableSet};

/// The coefficients of four neighbouring blocks of a plane. Row k of all four starts at `32 k`.
pub(super) type Group = [i16; 256];

/// Groups of a chroma plane in a strip. So few that a strip's coefficients and the tables fit in the L1 cache; not fewer, because
/// a vector load stalls on data that 2-byte stores have just written.
const WIDTH: usize = 2;
/// Units whose coefficients are stored at a time.
const STRIP: usize = 4 * WIDTH;
/// Largest number of groups in a strip, plus one that is only read by loads from the previous group.
const GROUPS: usize = 6 * WIDTH + 1;

#[derive(Debug, Default)]
pub(super) struct Memory {
    tables: Box<TableSet>,
    data: Data,
}

/// How the units of a row map to groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) sampling: Sampling,
    /// Units per row, and number of rows.
    pub(super) units: (usize, usize),
    pub(super) strips: usize,
}

impl Layout {
    pub(super) fn new(header: &JpegHeader) -> Self {
        let (across, down) = header.sampling.luma_blocks();
        let units = (
            (header.width as usize).div_ceil(8 * across),
            (header.height as usize).div_ceil(8 * down),
        );
        Self { sampling: header.sampling, units, strips: units.0.div_ceil(STRIP) }
    }

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

    pub(super) fn unit_blocks(&self, component: usize) -> (usize, usize) {
        if component == 0 { self.sampling.luma_blocks() } else { (1, 1) }
    }

    /// Blocks that the samples of a plane fill: across, down.
    pub(super) fn own_blocks(&self, header: &JpegHeader, component: usize) -> (usize, usize) {
        let (across, down) = self.sampling.luma_blocks();
        let (wide, high) = self.unit_blocks(component);
        let blocks = |length: u32, own: usize, most: usize| {
            (length as usize * own).div_ceil(most).div_ceil(8)
        };
        (blocks(header.width, wide, across), blocks(header.height, high, down))
    }

    fn groups(&self) -> usize {
        let (across, down) = self.sampling.luma_blocks();
        (down * across + self.sampling.components() - 1) * WIDTH
    }
}

/// Passes the coefficients of each strip within the `wanted` rows and strips to `take`, which leaves zeros. `read` reads blocks,
/// and keeps their coefficients or not. `None` if anything is wrong, up to the last bit before the end-of-image marker.
#[inline(always)]
pub(super) fn read_all(
    memory: &mut Memory,
    header: &JpegHeader,
    source: &[u8],
    wanted: (Range<usize>, Range<usize>),
    read: impl Fn(bool, &mut Blocks<'_, '_>) -> Option<()>,
    mut take: impl FnMut(&Layout, (usize, usize), &mut [Group]),
) -> Option<()> {
    let layout = Layout::new(header);
    let units = layout.units.0 * layout.units.1;
    let interval = match header.tables.restart_interval {
        0 => units,
        interval => interval,
    };
    let parts = units.div_ceil(interval);
    let (end, _) = memory.data.fill(source.get(header.samples..)?, parts)?;
    (end == 0xD9).then_some(())?;
    memory.make_tables(header)?;
    let tables = memory.tables_of(header);
    let (places, in_unit) = list_places(&layout, tables);
    let mut coefficients = [[0; 256]; GROUPS];
    let mut parts = memory.data.parts.iter();
    let (mut start, mut bits, mut left) = (0, Bits::new(&[0; PADDING])?, 0);
    let mut predicted = [0; 3];
    for row in 0..layout.units.1 {
        for strip in 0..layout.strips {
            let keep = wanted.0.contains(&row) && wanted.1.contains(&strip);
            let (mut unit, end) = (0, STRIP.min(layout.units.0 - strip * STRIP));
            while unit < end {
                if left == 0 {
                    bits.at_end().then_some(())?;
                    let &end = parts.next()?;
                    (bits, start) = (Bits::new(memory.data.part(start..end)?)?, end);
                    (left, predicted) = (interval, [0; 3]);
                }
                let now = left.min(end - unit);
                let places = &places[unit * in_unit..][..now * in_unit];
                let mut blocks = Blocks {
                    bits: &mut bits,
                    places: places.iter(),
                    predicted: &mut predicted,
                    strip: coefficients.as_flattened_mut(),
                };
                read(keep, &mut blocks)?;
                (left, unit) = (left - now, unit + now);
            }
            if keep {
                let groups = &mut coefficients[..layout.groups()];
                take(&layout, (row, strip), groups);
                if strip + 1 == wanted.1.end {
                    // `take` needed the cache for the row's pixels.
                    tables[..2].iter().for_each(|(_, table)| table.fetch());
                }
            }
        }
    }
    bits.at_end().then_some(())
}

/// The blocks of a strip, in file order, and how many a unit has.
fn list_places<'a>(
    layout: &Layout,
    tables: [(&'a Table, &'a PairTable); 3],
) -> ([Place<'a>; STRIP * 6], usize) {
    let (dc, ac) = tables[0];
    let nowhere = Place { dc, ac, component: 0, first: 0 };
    let (mut places, mut count) = ([nowhere; STRIP * 6], 0);
    for unit in 0..STRIP {
        for (component, (dc, ac)) in (0..layout.sampling.components()).zip(tables) {
            let (down, groups, first) = layout.plane(component);
            let across = groups / WIDTH;
            for (y, x) in (0..down).flat_map(|y| (0..across).map(move |x| (y, x))) {
                let block = (first + y * groups) * 4 + unit * across + x;
                places[count] = Place { dc, ac, component, first: block / 4 * 256 + block % 4 * 8 };
                count += 1;
            }
        }
    }
    (places, count / STRIP)
}

impl Memory {
    fn tables_of(&self, header: &JpegHeader) -> [(&Table, &PairTable); 3] {
        header.components.map(|component| {
            let TableSet { dc, ac } = &*self.tables;
            (&dc[usize::from(component.dc_table & 3)], &ac[usize::from(component.ac_table & 3)])
        })
    }

    fn make_tables(&mut self, header: &JpegHeader) -> Option<()> {
        for component in &header.components[..header.sampling.components()] {
            let (dc, ac) = (usize::from(component.dc_table), usize::from(component.ac_table));
            let (dc_codes, ac_codes) = (header.tables.dc_codes(dc)?, header.tables.ac_codes(ac)?);
            self.tables.dc.get_mut(dc)?.make(dc_codes, Symbols::Dc)?;
            self.tables.ac.get_mut(ac)?.make(ac_codes, Symbols::Ac)?;
        }
        Some(())
    }
}
