//! Converts planes to the pixels of the wanted part, with kernels from the caller.

use super::header::{JpegHeader, Sampling};
use super::planes::{self, CHUNK, Source};
use crate::crop_box::CropBox;

// libjpeg's colour factors with 16 fractional bits: 1.402 - 1, 1.772 - 2, and -0.34414 with 1 - 0.71414.
pub(super) const RED: i16 = 26_345;
pub(super) const BLUE: i16 = -14_942;
pub(super) const GREEN: i32 = super::kernels::pair(-22_554, 18_734);

/// Reused buffers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) planes: planes::Memory,
    sums: Vec<u16>,
    /// One row of chroma, upsampled to the columns of luma.
    lines: [Vec<u8>; 2],
}

/// Converts the planes, with rows `strides` bytes apart, to the pixels of the wanted part.
#[inline(always)]
pub(super) fn make(
    source: Source<'_>,
    memory: &mut Memory,
    strides: [usize; 2],
    pixels: &mut [u8],
    colours: impl Fn(&[u8], &[u8], &[u8], &mut [u8]),
    grays: impl Fn(&[u8], &mut [u8]),
) {
    let Source { header, part, .. } = source;
    let [luma, blue, red] = &memory.planes.planes;
    let rows = Rows {
        header,
        part,
        strides,
    };
    let row_bytes = header.width as usize * 3;
    let width = (part.width as usize).next_multiple_of(CHUNK);
    // The last chunk of a row may run into the next row, which is written later, or past the image.
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
}

/// The chroma rows of the part.
struct Rows<'a> {
    header: &'a JpegHeader,
    part: CropBox,
    strides: [usize; 2],
}

impl Rows<'_> {
    /// A row of chroma, upsampled to the columns of luma, from the even column at or before the start of the part.
    #[inline(always)]
    fn upsample(&self, plane: &[u8], y: usize, sums: &mut Vec<u16>, line: &mut Vec<u8>) {
        let first = self.part.x as usize / 2;
        let end = (self.part.x + self.part.width).div_ceil(2) as usize;
        let last = (self.header.width as usize).div_ceil(2) - 1;
        // Includes the neighbours. The outermost columns are their own neighbours.
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
