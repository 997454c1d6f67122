//! Decodes to planes of samples: luma, and chroma at its own resolution. They hold only the newest rows, which stay in the
//! fastest caches.

use std::ops::Range;

use super::bits::Blocks;
use super::header::JpegHeader;
use super::progressive;
use super::scan::{self, Group, Layout};
use crate::buffer::first_bytes;
use crate::crop_box::CropBox;

/// Samples that the kernels process at once. They may read as many from any sample on, even the last of a plane.
pub(super) const CHUNK: usize = 32;

const SIDE: usize = 8;

#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) header: &'a JpegHeader,
    pub(super) bytes: &'a [u8],
    pub(super) part: CropBox,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    scan: scan::Memory,
    progressive: progressive::Memory,
    planes: [Vec<u8>; 3],
}

/// Rows of units that the planes hold: smooth upsampling needs the row of chroma before the newest.
const HELD: usize = 2;

#[derive(Clone, Copy)]
pub(super) struct Newest<'a> {
    planes: &'a [Vec<u8>; 3],
    shape: Shape,
}

/// A value for luma and one for chroma.
#[derive(Clone, Copy)]
struct Shape {
    /// Bytes from a row to the next.
    strides: [usize; 2],
    /// Rows that are held, a power of two.
    held: [usize; 2],
}

impl Shape {
    fn new(layout: &Layout) -> Self {
        let planes = [layout.plane(0), layout.plane(1)];
        Self {
            strides: planes.map(|(_, across, _)| layout.strips * across * 4 * SIDE),
            held: planes.map(|(down, _, _)| HELD * down * SIDE),
        }
    }

    fn start(self, component: usize, y: usize) -> usize {
        let kind = component.min(1);
        (y & (self.held[kind] - 1)) * self.strides[kind]
    }
}

impl<'a> Newest<'a> {
    pub(super) fn row_on(self, component: usize, y: usize) -> &'a [u8] {
        &self.planes[component][self.shape.start(component, y)..]
    }

    /// Samples from a row of chroma to the next.
    pub(super) fn chroma_stride(self) -> usize {
        self.shape.strides[1]
    }
}

fn ready(layout: &Layout, part: CropBox, row: usize, is_last: bool) -> Range<usize> {
    let (_, down) = layout.sampling.luma_blocks();
    // For the last row of pixels, smooth upsampling needs the next row of chroma.
    let missing = down - 1;
    let (start, end) = (part.y as usize, (part.y + part.height) as usize);
    let before = (row * down * SIDE).saturating_sub(missing);
    let now = if is_last { end } else { (row + 1) * down * SIDE - missing };
    before.max(start)..now.min(end)
}

fn needed(layout: &Layout, header: &JpegHeader, part: CropBox) -> (Range<usize>, Range<usize>) {
    let units = |start: u32, length: u32, whole: u32, blocks: usize| {
        let (start, end) = (start as usize, (start + length) as usize);
        let (first, last) = if blocks == 1 {
            (start, end)
        } else {
            // Smooth upsampling needs the neighbouring chroma samples.
            (start.saturating_sub(2), (end + 2).min(whole as usize))
        };
        first / (8 * blocks)..last.div_ceil(8 * blocks)
    };
    let (across, down) = header.sampling.luma_blocks();
    let columns = units(part.x, part.width, header.width, across);
    (units(part.y, part.height, header.height, down), layout.strips_of(columns))
}

/// Decodes to planes as far as the part needs them, and calls `make` for the rows of pixels that can be made, from top to
/// bottom. `None` if libjpeg-turbo must decode the file; rows may have been made.
///
/// `samples` converts a row of groups to eight rows of samples with the given stride, leaves zeros, and returns whether all
/// coefficients are in the usual range.
#[inline(always)]
pub(super) fn decode(
    source: Source<'_>,
    memory: &mut Memory,
    read: impl Fn(bool, &mut Blocks<'_, '_>) -> Option<()>,
    samples: impl Fn(&mut [Group], &[i16; 64], &mut [u8], usize) -> bool,
    make: impl FnMut(Newest<'_>, Range<usize>),
) -> Option<()> {
    let header = source.header;
    let layout = Layout::new(header);
    let shape = Shape::new(&layout);
    let components = header.sampling.components();
    for (component, plane) in memory.planes.iter_mut().enumerate().take(components) {
        let kind = component.min(1);
        first_bytes(plane, shape.strides[kind] * shape.held[kind] + CHUNK);
    }
    let usual = if header.progressive {
        let usual = of_all_scans(memory, source, &layout, shape, samples, make);
        // Larger than the image, so they are not kept.
        memory.progressive.planes = Default::default();
        usual?
    } else {
        of_one_scan(memory, source, &layout, shape, read, samples, make)?
    };
    usual.then_some(())
}

/// Strip by strip. Returns whether all coefficients are in the usual range.
#[inline(always)]
fn of_one_scan(
    memory: &mut Memory,
    source: Source<'_>,
    layout: &Layout,
    shape: Shape,
    read: impl Fn(bool, &mut Blocks<'_, '_>) -> Option<()>,
    samples: impl Fn(&mut [Group], &[i16; 64], &mut [u8], usize) -> bool,
    mut make: impl FnMut(Newest<'_>, Range<usize>),
) -> Option<bool> {
    let header = source.header;
    let components = header.sampling.components();
    let mut steps = [&[0; 64]; 3];
    for (steps, component) in steps.iter_mut().zip(&header.components[..components]) {
        *steps = header.tables.quantization(component.quantization)?;
    }
    let planes = &mut memory.planes;
    let wanted = needed(layout, header, source.part);
    let (last_row, last_strip) = (wanted.0.end - 1, wanted.1.end - 1);
    let mut usual = true;
    scan::read_all(
        &mut memory.scan,
        header,
        source.bytes,
        wanted,
        read,
        |layout, (row, strip), groups| {
            for component in 0..components {
                let (down, across, first) = layout.plane(component);
                let (plane, stride) = (&mut planes[component], shape.strides[component.min(1)]);
                for y in 0..down {
                    let groups = &mut groups[first + y * across..][..across];
                    let start = shape.start(component, (row * down + y) * SIDE);
                    let at = start + strip * across * 4 * SIDE;
                    usual &= samples(groups, steps[component], &mut plane[at..], stride);
                }
            }
            if strip == last_strip {
                let rows = ready(layout, source.part, row, row == last_row);
                make(Newest { planes, shape }, rows);
            }
        },
    )?;
    Some(usual)
}

/// Reads all scans, then converts the wanted coefficients. Returns the same.
#[inline(always)]
fn of_all_scans(
    memory: &mut Memory,
    source: Source<'_>,
    layout: &Layout,
    shape: Shape,
    samples: impl Fn(&mut [Group], &[i16; 64], &mut [u8], usize) -> bool,
    mut make: impl FnMut(Newest<'_>, Range<usize>),
) -> Option<bool> {
    let header = source.header;
    progressive::read(&mut memory.progressive, header, source.bytes)?;
    let (rows, strips) = needed(layout, header, source.part);
    let mut usual = true;
    for row in rows.clone() {
        for component in 0..header.sampling.components() {
            let (down, across, _) = layout.plane(component);
            let (plane, stride) = (&mut memory.planes[component], shape.strides[component.min(1)]);
            let coefficients = &mut memory.progressive.planes[component];
            let steps = coefficients.steps?;
            for y in row * down..(row + 1) * down {
                let groups = &mut coefficients.row(y)[strips.start * across..strips.end * across];
                let at = shape.start(component, y * SIDE) + strips.start * across * 4 * SIDE;
                usual &= samples(groups, &steps, &mut plane[at..], stride);
            }
        }
        let newest = Newest { planes: &memory.planes, shape };
        make(newest, ready(layout, source.part, row, row + 1 == rows.end));
    }
    Some(usual)
}
