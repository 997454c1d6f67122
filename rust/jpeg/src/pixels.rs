//! Converts planes to the pixels of the wanted part, with kernels from the caller.

use std::ops::Range;

use super::header::{JpegHeader, Sampling};
use super::planes::{CHUNK, Newest, Source};
use crate::crop_box::CropBox;

// libjpeg's colour factors: 1.402 - 1 and 1.772 - 2 with 15 fractional bits, -0.34414 and 1 - 0.71414 with 16. libjpeg has 16 for
// all, which makes no difference for 8-bit numbers.
pub(super) const RED: i16 = rounded(26_345);
pub(super) const BLUE: i16 = rounded(-14_942);
pub(super) const GREEN: i32 = super::kernels::pair(-22_554, 18_734);

/// A factor with 15 fractional bits whose rounded products equal those of this one with 16. Checked for all samples.
const fn rounded(factor: i32) -> i16 {
    let shorter = (factor + 1) >> 1;
    let mut number = -128;
    while number < 128 {
        let product = (number * factor + (1 << 15)) >> 16;
        assert!(product == (number * shorter + (1 << 14)) >> 15);
        number += 1;
    }
    shorter as i16
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    sums: Vec<u16>,
    /// One row of chroma, upsampled to the columns of luma.
    lines: [Vec<u8>; 2],
}

/// Makes some rows of pixels of the wanted part.
#[inline(always)]
pub(super) fn make(
    source: Source<'_>,
    planes: Newest<'_>,
    rows: Range<usize>,
    memory: &mut Memory,
    pixels: &mut [u8],
    colours: impl Fn(&[u8], &[u8], &[u8], &mut [u8]),
    grays: impl Fn(&[u8], &mut [u8]),
) {
    let Source { header, part, .. } = source;
    let chroma = Chroma { header, part, planes };
    let row_bytes = header.width as usize * 3;
    let (x, width) = (part.x as usize, (part.width as usize).next_multiple_of(CHUNK));
    // The last chunk of a row may run into the next row, which is written later, or past the image.
    for y in rows {
        let at = y * row_bytes + x * 3;
        let out = &mut pixels[at..at + width * 3];
        let luma = &planes.row_on(0, y)[x..];
        match header.sampling {
            Sampling::Gray => grays(luma, out),
            Sampling::Full => {
                let [blue, red] = [1, 2].map(|plane| &planes.row_on(plane, y)[x..]);
                colours(luma, blue, red, out);
            }
            Sampling::HalfColumns | Sampling::Quarter => {
                for (plane, line) in (1..).zip(&mut memory.lines) {
                    chroma.upsample(plane, y, &mut memory.sums, line);
                }
                let [blue, red] = &memory.lines;
                colours(luma, &blue[x % 2..], &red[x % 2..], out);
            }
        }
    }
}

struct Chroma<'a> {
    header: &'a JpegHeader,
    part: CropBox,
    planes: Newest<'a>,
}

impl Chroma<'_> {
    /// A row of chroma, upsampled to the columns of luma, from the even column at or before the start of the part.
    #[inline(always)]
    fn upsample(&self, plane: usize, y: usize, sums: &mut Vec<u16>, line: &mut Vec<u8>) {
        let first = self.part.x as usize / 2;
        let end = (self.part.x + self.part.width).div_ceil(2) as usize;
        let last = (self.header.width as usize).div_ceil(2) - 1;
        // Includes the neighbours. The outermost columns are their own neighbours.
        let (left, right) = (first.saturating_sub(1), end.min(last));
        let inner = 1..end - first + 1;
        sums.resize(inner.end + 1, 0);
        let row = |y: usize| &self.planes.row_on(plane, y)[..self.planes.chroma_stride()];
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
