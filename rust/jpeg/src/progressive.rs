//! Progressive files: all scans to the coefficients of the whole image.

use super::bits::{Band, Bits, PADDING, read_band, read_dc, refine_band, refine_dc};
use super::data::Data;
use super::header::JpegHeader;
use super::huffman::{Symbols, TableSet};
use super::scan::{Group, Layout};
use super::tables::Tables;

/// The low bit of a coefficient before its first scan.
const UNKNOWN: u8 = 0xFF;

#[derive(Debug, Default)]
pub(super) struct Memory {
    tables: Box<TableSet>,
    data: Data,
    pub(super) planes: [Coefficients; 3],
}

#[derive(Debug, Default)]
pub(super) struct Coefficients {
    /// Groups of four blocks, row by row, and one more that is only read. Flat: only then are fresh zeros not written again.
    groups: Vec<i16>,
    /// For each block, one bit per coefficient in file order: whether it is not zero.
    nonzero: Vec<u64>,
    across: usize,
    /// The lowest known bit of each coefficient, in file order.
    known: Vec<u8>,
    /// The quantization table at the plane's first scan.
    pub(super) steps: Option<[i16; 64]>,
}

struct Scan {
    /// The planes, and their numbers of DC and AC tables.
    planes: Vec<(usize, usize, usize)>,
    band: Band,
    /// Whether the coefficients are known down to the bit above.
    refines: bool,
    /// Blocks across and down, if it has one plane; else units.
    size: (usize, usize),
    /// How many of them are between restarts.
    interval: usize,
}

impl Scan {
    fn parts(&self) -> usize {
        (self.size.0 * self.size.1).div_ceil(self.interval)
    }
}

#[derive(Default)]
struct State {
    predicted: [i32; 3],
    /// For how many blocks the band has ended.
    ended: u32,
}

/// Reads all scans. `None` if anything is irregular, or the coefficients are not known to the last bit.
#[inline(always)]
pub(super) fn read(memory: &mut Memory, header: &JpegHeader, source: &[u8]) -> Option<()> {
    let layout = Layout::new(header);
    let planes = header.sampling.components();
    for (component, plane) in memory.planes.iter_mut().enumerate().take(planes) {
        *plane = Coefficients::new(&layout, component);
    }
    let (mut tables, mut at) = (header.tables.clone(), header.first_scan);
    loop {
        if source.get(at..)?.starts_with(&[0xFF, 0xD9]) {
            break;
        }
        let &[0xFF, marker, high, low] = source.get(at..)?.first_chunk::<4>()? else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let segment = source.get(at + 4..at + 2 + length)?;
        at += 2 + length;
        if marker == 0xDA {
            let scan = memory.begin(&layout, header, &tables, segment)?;
            at += memory.data.fill(source.get(at..)?, scan.parts())?.1;
            memory.make_tables(&tables, &scan)?;
            memory.read_scan(&layout, &scan)?;
        } else {
            tables.read(marker, segment)?;
        }
    }
    let complete = |plane: &Coefficients| plane.known.iter().all(|&low| low == 0);
    memory.planes[..planes].iter().all(complete).then_some(())
}

impl Coefficients {
    fn new(layout: &Layout, component: usize) -> Self {
        let (down, across, _) = layout.plane(component);
        let across = layout.strips * across;
        let groups = across * down * layout.units.1;
        Self {
            groups: vec![0; (groups + 1) * 256],
            nonzero: vec![0; groups * 4],
            across,
            known: vec![UNKNOWN; 64],
            steps: None,
        }
    }

    pub(super) fn row(&mut self, row: usize) -> &mut [Group] {
        &mut self.groups.as_chunks_mut().0[row * self.across..][..self.across]
    }

    /// The coefficients of a block, and which are not zero.
    #[inline(always)]
    fn block(&mut self, x: usize, y: usize) -> Option<(&mut [i16; 256], &mut u64)> {
        let number = y * self.across * 4 + x;
        let first = number / 4 * 256 + number % 4 * 8;
        let flat = self.groups.get_mut(first..)?;
        Some((flat.first_chunk_mut()?, self.nonzero.get_mut(number)?))
    }
}

impl Memory {
    /// Checks the parameters of a scan against the scans before.
    fn begin(
        &mut self,
        layout: &Layout,
        header: &JpegHeader,
        tables: &Tables,
        segment: &[u8],
    ) -> Option<Scan> {
        let (&number, rest) = segment.split_first()?;
        let (own, rest) = rest.split_at_checked(2 * usize::from(number))?;
        let &[first, last, bits] = rest.first_chunk::<3>()?;
        let (high, low) = (bits >> 4, bits & 15);
        let all = &header.components[..header.sampling.components()];
        let mut planes: Vec<(usize, usize, usize)> = Vec::with_capacity(3);
        for own in own.chunks_exact(2) {
            let component = all.iter().position(|component| component.id == own[0])?;
            let (dc, ac) = (usize::from(own[1] >> 4), usize::from(own[1] & 15));
            planes.last().is_none_or(|&(before, ..)| before < component).then_some(())?;
            planes.push((component, dc, ac));
        }
        let band =
            if first == 0 { last == 0 } else { first <= last && last < 64 && planes.len() == 1 };
        let refines = high > 0;
        let bits = low <= 13 && (!refines || low + 1 == high);
        (rest.len() == 3 && !planes.is_empty() && band && bits).then_some(())?;
        for &(component, ..) in &planes {
            let plane = &mut self.planes[component];
            let expected = if refines { high } else { UNKNOWN };
            // The first scan of a plane has its DC terms.
            (first == 0 || plane.known[0] != UNKNOWN).then_some(())?;
            for known in &mut plane.known[usize::from(first)..=usize::from(last)] {
                (*known == expected).then_some(())?;
                *known = low;
            }
            if plane.steps.is_none() {
                plane.steps = Some(*tables.quantization(all[component].quantization)?);
            }
        }
        // Alone, a plane has only the blocks that its samples fill, row by row. Several planes have whole units.
        let size = match planes[..] {
            [(component, ..)] => layout.own_blocks(header, component),
            _ => layout.units,
        };
        let interval = match tables.restart_interval {
            0 => size.0 * size.1,
            interval => interval,
        };
        Some(Scan {
            planes,
            band: Band { first: first.into(), last: last.into(), low: low.into() },
            refines,
            size,
            interval,
        })
    }

    fn make_tables(&mut self, tables: &Tables, scan: &Scan) -> Option<()> {
        for &(_, dc, ac) in &scan.planes {
            if scan.band.first > 0 {
                self.tables.ac.get_mut(ac)?.make(tables.ac_codes(ac)?, Symbols::Band)?;
            } else if !scan.refines {
                self.tables.dc.get_mut(dc)?.make(tables.dc_codes(dc)?, Symbols::Dc)?;
            }
        }
        Some(())
    }

    #[inline(always)]
    fn read_scan(&mut self, layout: &Layout, scan: &Scan) -> Option<()> {
        let blocks = Blocks { layout, scan, data: &self.data };
        let (band, planes) = (scan.band, &mut self.planes);
        if band.first == 0 && scan.refines {
            return blocks.each(|bits, _, (component, x, y)| {
                refine_dc(bits, band, planes[component].block(x, y)?.0)
            });
        }
        if band.first == 0 {
            let mut dc = [&self.tables.dc[0]; 3];
            for &(component, number, _) in &scan.planes {
                dc[component] = &self.tables.dc[number];
            }
            return blocks.each(|bits, state, (component, x, y)| {
                let (out, _) = planes[component].block(x, y)?;
                let predicted = &mut state.predicted[component];
                read_dc(bits, dc[component], predicted, band, out)
            });
        }
        let &(component, _, ac) = scan.planes.first()?;
        let (ac, plane) = (&self.tables.ac[ac], &mut planes[component]);
        if scan.refines {
            return blocks.each(|bits, state, (_, x, y)| {
                let (out, nonzero) = plane.block(x, y)?;
                state.ended = refine_band(bits, ac, band, out, nonzero, state.ended)?;
                Some(())
            });
        }
        blocks.each(|bits, state, (_, x, y)| {
            if state.ended > 0 {
                state.ended -= 1;
                return Some(());
            }
            let (out, nonzero) = plane.block(x, y)?;
            state.ended = read_band(bits, ac, band, out, nonzero)?;
            Some(())
        })
    }
}

struct Blocks<'a> {
    layout: &'a Layout,
    scan: &'a Scan,
    data: &'a Data,
}

impl Blocks<'_> {
    /// `work` gets the plane, column and row of a block.
    #[inline(always)]
    fn each(
        &self,
        mut work: impl FnMut(&mut Bits<'_>, &mut State, (usize, usize, usize)) -> Option<()>,
    ) -> Option<()> {
        let Self { layout, scan, data } = *self;
        let alone = (scan.planes.len() == 1).then(|| scan.planes[0].0);
        let (across, down) = scan.size;
        let (mut parts, mut start, mut left) = (data.parts.iter(), 0, 0);
        let (mut bits, mut state) = (Bits::new(&[0; PADDING])?, State::default());
        for (y, x) in (0..down).flat_map(|y| (0..across).map(move |x| (y, x))) {
            if left == 0 {
                (bits.at_end() && state.ended == 0).then_some(())?;
                let &end = parts.next()?;
                (bits, start) = (Bits::new(data.part(start..end)?)?, end);
                (left, state) = (scan.interval, State::default());
            }
            left -= 1;
            if let Some(component) = alone {
                work(&mut bits, &mut state, (component, x, y))?;
                continue;
            }
            for &(component, ..) in &scan.planes {
                let (wide, high) = layout.unit_blocks(component);
                for block in 0..wide * high {
                    let place = (x * wide + block % wide, y * high + block / wide);
                    work(&mut bits, &mut state, (component, place.0, place.1))?;
                }
            }
        }
        (bits.at_end() && state.ended == 0).then_some(())
    }
}
