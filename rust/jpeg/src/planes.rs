//! Decodes the file to planes of samples: luma, and chroma at its own resolution.

use std::ops::Range;

use super::header::JpegHeader;
use super::progressive;
use super::scan::{self, Group, Layout};
use crate::buffer::first_bytes;
use crate::crop_box::CropBox;

/// Samples that the kernels process at once. They may read as many from any sample on, even from the last of a plane.
pub(super) const CHUNK: usize = 64;

/// Width and height of a block.
const SIDE: usize = 8;

/// A file, and the wanted part of its image.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) header: &'a JpegHeader,
    pub(super) bytes: &'a [u8],
    pub(super) part: CropBox,
}

/// Reused buffers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    scan: scan::Memory,
    progressive: progressive::Memory,
    /// Luma, blue chroma, red chroma.
    pub(super) planes: [Vec<u8>; 3],
}

/// The rows of units, and the strips in them, that the wanted part needs.
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
    (
        units(part.y, part.height, header.height, down),
        layout.strips_of(columns),
    )
}

/// Fills the planes as far as the part needs them. Returns the strides of luma and chroma, or `None` if libjpeg-turbo must
/// decode the file.
///
/// The kernel converts a row of groups to eight rows of samples with the given stride, and returns whether all coefficients
/// are in the usual range.
#[inline(always)]
pub(super) fn fill(
    source: Source<'_>,
    memory: &mut Memory,
    samples: impl Fn(&[Group], &[i16; 64], &mut [u8], usize) -> bool,
) -> Option<[usize; 2]> {
    let Source { header, part, .. } = source;
    let layout = Layout::new(header);
    let stride = |kind: usize| layout.strips * layout.plane(kind).1 * 4 * SIDE;
    let strides = [stride(0), stride(1)];
    let components = header.sampling.components();
    for (component, plane) in memory.planes.iter_mut().enumerate().take(components) {
        let (down, _, _) = layout.plane(component);
        let bytes = strides[component.min(1)] * layout.units.1 * down * SIDE;
        first_bytes(plane, bytes + CHUNK);
    }
    let wanted = needed(&layout, header, part);
    let usual = if header.progressive {
        of_all_scans(memory, source, wanted, strides, samples)?
    } else {
        of_one_scan(memory, source, wanted, strides, samples)?
    };
    usual.then_some(strides)
}

/// Reads a file with one scan strip by strip. Returns whether all coefficients are in the usual range.
#[inline(always)]
fn of_one_scan(
    memory: &mut Memory,
    source: Source<'_>,
    wanted: (Range<usize>, Range<usize>),
    strides: [usize; 2],
    samples: impl Fn(&[Group], &[i16; 64], &mut [u8], usize) -> bool,
) -> Option<bool> {
    let header = source.header;
    let components = header.sampling.components();
    let mut steps = [&[0; 64]; 3];
    for (steps, component) in steps.iter_mut().zip(&header.components[..components]) {
        *steps = header.tables.quantization(component.quantization)?;
    }
    let planes = &mut memory.planes;
    let mut usual = true;
    scan::read(
        &mut memory.scan,
        header,
        source.bytes,
        wanted,
        |layout, (row, strip), groups| {
            for component in 0..components {
                let (down, across, first) = layout.plane(component);
                let (plane, stride) = (&mut planes[component], strides[component.min(1)]);
                for y in 0..down {
                    let groups = &groups[first + y * across..][..across];
                    let at = (row * down + y) * SIDE * stride + strip * across * 4 * SIDE;
                    usual &= samples(groups, steps[component], &mut plane[at..], stride);
                }
            }
        },
    )?;
    Some(usual)
}

/// Reads a file with many scans, then converts the coefficients that are wanted. Returns the same.
#[inline(always)]
fn of_all_scans(
    memory: &mut Memory,
    source: Source<'_>,
    (rows, strips): (Range<usize>, Range<usize>),
    strides: [usize; 2],
    samples: impl Fn(&[Group], &[i16; 64], &mut [u8], usize) -> bool,
) -> Option<bool> {
    let header = source.header;
    progressive::read(&mut memory.progressive, header, source.bytes)?;
    let layout = Layout::new(header);
    let mut usual = true;
    for component in 0..header.sampling.components() {
        let (down, across, _) = layout.plane(component);
        let (plane, stride) = (&mut memory.planes[component], strides[component.min(1)]);
        let coefficients = memory.progressive.plane(component);
        let steps = coefficients.steps.as_ref()?;
        for row in rows.start * down..rows.end * down {
            let groups = &coefficients.row(row)[strips.start * across..strips.end * across];
            let at = row * SIDE * stride + strips.start * across * 4 * SIDE;
            usual &= samples(groups, steps, &mut plane[at..], stride);
        }
    }
    Some(usual)
}
