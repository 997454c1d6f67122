//! From coefficients to the pixels of the wanted part, by kernels that the caller brings.

use std::ops::Range;

use super::header::{Header, Sampling};
use super::scan::{self, Group, Layout};
use crate::buffer::first_bytes;
use crate::decode::{CropBox, Rgb8};

// Factors of the colours with 16 fractional bits, as libjpeg has them: 1.402 - 1, 1.772 - 2, and -0.34414 with 1 - 0.71414.
pub(super) const RED: i16 = 26_345;
pub(super) const BLUE: i16 = -14_942;
pub(super) const GREEN: i32 = super::islow::pair(-22_554, 18_734);

/// Pixels that the kernels treat at once.
const CHUNK: usize = 64;

/// What there is to do, and the memory to do it with.
pub(super) struct Picture<'a> {
    pub(super) header: &'a Header,
    pub(super) source: &'a [u8],
    pub(super) part: CropBox,
    pub(super) memory: &'a mut Memory,
    pub(super) into: &'a mut Rgb8,
}

/// Buffers, reused from picture to picture.
#[derive(Debug, Default)]
pub(super) struct Memory {
    scan: scan::Memory,
    planes: [Vec<u8>; 3],
    sums: Vec<u16>,
    /// Chroma with the columns of luma, of one row.
    lines: [Vec<u8>; 2],
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

/// Decodes the wanted part; nothing where libjpeg-turbo must do it.
#[inline(always)]
pub(super) fn decode(
    picture: Picture<'_>,
    samples: impl Fn(&[Group], &[i16; 64], &mut [u8], usize) -> bool,
    colours: impl Fn(&[u8], &[u8], &[u8], &mut [u8]),
    grays: impl Fn(&[u8], &mut [u8]),
) -> Option<()> {
    let Picture {
        header,
        source,
        part,
        memory,
        into,
    } = picture;
    let layout = Layout::new(header);
    let needed = Needed::new(header, part);
    let strides = layout.groups.map(|groups| groups * 32);
    let components = header.sampling.components();
    let mut steps = [&[0; 64]; 3];
    for component in 0..components {
        let (down, _) = layout.plane(component);
        let bytes = strides[component.min(1)] * layout.units.1 * down * 8;
        first_bytes(&mut memory.planes[component], bytes + CHUNK);
        steps[component] = header.quantization(component)?;
    }
    let planes = &mut memory.planes;
    let mut usual = true;
    scan::read(
        &mut memory.scan,
        header,
        source,
        needed.units.clone(),
        |layout, row, groups| {
            for component in 0..components {
                let (down, first) = layout.plane(component);
                let (kind, plane) = (component.min(1), &mut planes[component]);
                let columns = needed.groups[kind].clone();
                for y in 0..down {
                    let groups = &groups[first + y * layout.groups[kind]..][columns.clone()];
                    let at = (row * down + y) * 8 * strides[kind] + columns.start * 32;
                    usual &= samples(groups, steps[component], &mut plane[at..], strides[kind]);
                }
            }
        },
    )?;
    if !usual {
        return None;
    }
    let [luma, blue, red] = &memory.planes;
    let rows = Rows {
        header,
        part,
        strides,
    };
    let row_bytes = header.width as usize * 3;
    let width = (part.width as usize).next_multiple_of(CHUNK);
    // The last chunk of a row may end in the next one, which is written later, or behind the picture.
    let pixels = into.reshape_loosely(header.width, header.height, CHUNK * 3);
    for y in part.y as usize..(part.y + part.height) as usize {
        let at = y * row_bytes + part.x as usize * 3;
        let out = &mut pixels[at..at + width * 3];
        let luma = &luma[y * strides[0] + part.x as usize..];
        match header.sampling {
            Sampling::Gray => grays(luma, out),
            Sampling::Full => {
                let at = y * strides[1] + part.x as usize;
                colours(luma, &blue[at..], &red[at..], out);
            }
            Sampling::HalfColumns | Sampling::Quarter => {
                for (plane, line) in [blue, red].into_iter().zip(&mut memory.lines) {
                    rows.upsample(plane, y, &mut memory.sums, line);
                }
                let [blue, red] = &memory.lines;
                let at = part.x as usize % 2;
                colours(luma, &blue[at..], &red[at..], out);
            }
        }
    }
    Some(())
}

/// The part's rows of chroma.
struct Rows<'a> {
    header: &'a Header,
    part: CropBox,
    strides: [usize; 2],
}

impl Rows<'_> {
    /// A row of chroma with the columns of luma, from the even column on that the part begins with or after.
    #[inline(always)]
    fn upsample(&self, plane: &[u8], y: usize, sums: &mut Vec<u16>, line: &mut Vec<u8>) {
        let first = self.part.x as usize / 2;
        let end = (self.part.x + self.part.width).div_ceil(2) as usize;
        let last = (self.header.width as usize).div_ceil(2) - 1;
        // With the neighbours; the outermost columns are their own.
        let (left, right) = (first.saturating_sub(1), end.min(last));
        let inner = 1..end - first + 1;
        sums.resize(inner.end + 1, 0);
        let row = |y: usize| &plane[y * self.strides[1]..][..self.strides[1]];
        let quarter = self.header.sampling == Sampling::Quarter;
        if quarter {
            let lowest = (self.header.height as usize).div_ceil(2) - 1;
            let other = if y.is_multiple_of(2) {
                (y / 2).saturating_sub(1)
            } else {
                (y / 2 + 1).min(lowest)
            };
            let (near, far) = (row(y / 2), row(other));
            let sum = |x: usize| 3 * u16::from(near[x]) + u16::from(far[x]);
            (sums[0], sums[inner.end]) = (sum(left), sum(right));
            let both = near[first..end].iter().zip(&far[first..end]);
            for (sum, (&near, &far)) in sums[inner].iter_mut().zip(both) {
                *sum = 3 * u16::from(near) + u16::from(far);
            }
        } else {
            let near = row(y);
            (sums[0], sums[inner.end]) = (u16::from(near[left]), u16::from(near[right]));
            for (sum, &near) in sums[inner].iter_mut().zip(&near[first..end]) {
                *sum = u16::from(near);
            }
        }
        let length = 2 * (end - first);
        if line.len() < length + CHUNK + 1 {
            line.resize(length + CHUNK + 1, 0);
        }
        let (before, own, after) = (&sums[..], &sums[1..], &sums[2..]);
        let pairs = line[..length].chunks_exact_mut(2);
        let neighbours = before.iter().zip(own).zip(after);
        if quarter {
            for (out, ((&before, &own), &after)) in pairs.zip(neighbours) {
                out[0] = ((3 * own + before + 8) >> 4) as u8;
                out[1] = ((3 * own + after + 7) >> 4) as u8;
            }
        } else {
            for (out, ((&before, &own), &after)) in pairs.zip(neighbours) {
                out[0] = ((3 * own + before + 1) >> 2) as u8;
                out[1] = ((3 * own + after + 2) >> 2) as u8;
            }
        }
    }
}
