//! From the file to planes of samples: luma, and chroma at its own resolution.

use std::ops::Range;

use super::header::{Header, Sampling};
use super::scan::{self, Group, Layout};
use crate::buffer::first_bytes;
use crate::decode::{CropBox, Extent, Plane, Planes};

/// Samples that the kernels treat at once. As many may be read from any sample on, also from a plane's last.
pub(super) const CHUNK: usize = Plane::AT_LEAST;

/// A file, and the part of its picture that is wanted.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) header: &'a Header,
    pub(super) bytes: &'a [u8],
    pub(super) part: CropBox,
}

/// Buffers, reused from picture to picture.
#[derive(Debug, Default)]
pub(super) struct Memory {
    scan: scan::Memory,
    /// Luma, blue, red.
    pub(super) planes: [Vec<u8>; 3],
}

/// What of the planes the wanted part needs.
struct Needed {
    /// Rows of units.
    units: Range<usize>,
    /// Groups in a row of blocks, of luma and of either chroma.
    groups: [Range<usize>; 2],
}

impl Needed {
    fn new(header: &Header, part: CropBox) -> Self {
        let columns = part.x as usize..(part.x + part.width) as usize;
        let rows = part.y as usize..(part.y + part.height) as usize;
        let blocks =
            |samples: &Range<usize>, size: usize| samples.start / size..samples.end.div_ceil(size);
        // Smooth upsampling looks at the neighbours.
        let halved = |samples: &Range<usize>, length: u32| {
            let last = (length as usize).div_ceil(2);
            (samples.start / 2).saturating_sub(1)..(samples.end.div_ceil(2) + 1).min(last)
        };
        let luma = blocks(&columns, 32);
        let chroma = blocks(&halved(&columns, header.width), 32);
        match header.sampling {
            Sampling::Gray | Sampling::Full => Self {
                units: blocks(&rows, 8),
                groups: [luma.clone(), luma],
            },
            Sampling::HalfColumns => Self {
                units: blocks(&rows, 8),
                groups: [luma, chroma],
            },
            Sampling::Quarter => Self {
                units: blocks(&halved(&rows, header.height), 8),
                groups: [luma, chroma],
            },
        }
    }
}

/// Fills the planes as far as the part needs them, by a kernel that makes `side` x `side` samples of a block: the bytes from
/// row to row of luma and of either chroma. Nothing where libjpeg-turbo must do it.
///
/// The kernel turns a row of groups into rows of samples so many bytes apart, and says whether all of their coefficients are
/// usual ones.
#[inline(always)]
pub(super) fn fill(
    source: Source<'_>,
    memory: &mut Memory,
    side: usize,
    samples: impl Fn(&[Group], &[i16; 64], &mut [u8], usize) -> bool,
) -> Option<[usize; 2]> {
    let Source { header, part, .. } = source;
    let layout = Layout::new(header);
    let needed = Needed::new(header, part);
    let strides = layout.groups.map(|groups| groups * 4 * side);
    let components = header.sampling.components();
    let mut steps = [&[0; 64]; 3];
    for component in 0..components {
        let (down, _) = layout.plane(component);
        let bytes = strides[component.min(1)] * layout.units.1 * down * side;
        first_bytes(&mut memory.planes[component], bytes + CHUNK);
        steps[component] = header.quantization(component)?;
    }
    let planes = &mut memory.planes;
    let mut usual = true;
    scan::read(
        &mut memory.scan,
        header,
        source.bytes,
        needed.units.clone(),
        |layout, row, groups| {
            for component in 0..components {
                let (down, first) = layout.plane(component);
                let (kind, plane) = (component.min(1), &mut planes[component]);
                let columns = needed.groups[kind].clone();
                for y in 0..down {
                    let groups = &groups[first + y * layout.groups[kind]..][columns.clone()];
                    let at = (row * down + y) * side * strides[kind] + columns.start * 4 * side;
                    usual &= samples(groups, steps[component], &mut plane[at..], strides[kind]);
                }
            }
        },
    )?;
    usual.then_some(strides)
}

impl Memory {
    /// The part of the planes that [`fill`] made with blocks so many times smaller, and rows so many bytes apart.
    pub(super) fn part(
        &self,
        header: &Header,
        part: CropBox,
        smaller: u32,
        strides: [usize; 2],
    ) -> Planes<'_> {
        let plane = |component: usize, (across, down): (usize, usize)| {
            let (columns, left) = Extent::of_pixels(part.x, part.width, across as u32 * smaller);
            let (rows, top) = Extent::of_pixels(part.y, part.height, down as u32 * smaller);
            let stride = strides[component.min(1)];
            let first = top as usize * stride + left as usize;
            Plane::new(&self.planes[component][first..], stride, columns, rows)
        };
        let coarse = header.sampling.luma_blocks();
        let coloured = header.sampling.components() == 3;
        Planes {
            part,
            luma: plane(0, (1, 1)),
            chroma: coloured.then(|| [plane(1, coarse), plane(2, coarse)]),
        }
    }
}
