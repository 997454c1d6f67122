//! Windows and OS/2 bitmaps, with Pillow's choice of what is a bitmap and what its bits mean.

use super::{DecodeError, Rgb8, check_size};
use crate::buffer::first_bytes;

/// How the samples of a row become pixels.
#[derive(Clone, Copy)]
enum Samples<'a> {
    /// Indices of so many bits into triples or quadruples of blue, green and red.
    Indexed {
        bits: usize,
        palette: &'a [u8],
        entry: usize,
    },
    /// One bit, black or white.
    Bilevel,
    /// Eight bits of grey.
    Gray,
    /// Words of 16 bits, with 5 or 6 of green.
    Packed { green_bits: u32 },
    /// Whole bytes, and where red, green and blue stand among them.
    Bytes { count: usize, places: [usize; 3] },
}

struct Header<'a> {
    width: u32,
    height: u32,
    bits: usize,
    top_down: bool,
    /// 1 for runs of bytes, 2 for runs of half bytes, else 0.
    run_bits: u32,
    samples: Samples<'a>,
    /// Where the samples begin.
    offset: usize,
}

const SHORT: DecodeError = DecodeError::Bmp("a header that ends too early");
const LAYOUT: DecodeError = DecodeError::Bmp("an unusual layout of colours");

pub(super) fn decode(
    bytes: &[u8],
    max_pixels: u64,
    scratch: &mut Vec<u8>,
    into: &mut Rgb8,
) -> Result<(), DecodeError> {
    let header = header(bytes)?;
    let Header { width, height, .. } = header;
    check_size(width, height, max_pixels)?;
    if width == 0 || height == 0 {
        return Err(DecodeError::Bmp("no pixels"));
    }
    let columns = width as usize;
    let (samples, kind, stride) = if header.run_bits == 0 {
        let samples = bytes.get(header.offset..).unwrap_or(&[]);
        (
            samples,
            header.samples,
            (columns * header.bits).div_ceil(32) * 4,
        )
    } else {
        let kind = match header.samples {
            Samples::Gray => Samples::Gray,
            Samples::Indexed { palette, entry, .. } => Samples::Indexed {
                bits: 8,
                palette,
                entry,
            },
            _ => return Err(DecodeError::Bmp("runs of something else than indices")),
        };
        let indices = first_bytes(scratch, columns * height as usize);
        expand_runs(bytes, &header, indices)?;
        (&*indices, kind, columns)
    };
    let needed = kind.row_bytes(columns);
    if stride < needed {
        return Err(DecodeError::Bmp("rows that are too short"));
    }
    if samples.len() < stride * (height as usize - 1) + needed {
        return Err(DecodeError::Truncated);
    }
    let rows = samples.chunks(stride);
    let out = into.reshape(width, height).chunks_exact_mut(columns * 3);
    if header.top_down {
        rows.zip(out).for_each(|(row, out)| kind.expand(row, out));
    } else {
        rows.zip(out.rev())
            .for_each(|(row, out)| kind.expand(row, out));
    }
    Ok(())
}

fn header(bytes: &[u8]) -> Result<Header<'_>, DecodeError> {
    let size = number(bytes, 14)? as usize;
    let info = bytes.get(14..14 + size.min(124)).ok_or(SHORT)?;
    let mut header = Header {
        width: 0,
        height: 0,
        bits: 0,
        top_down: false,
        run_bits: 0,
        samples: Samples::Gray,
        offset: number(bytes, 10)? as usize,
    };
    let (mut compression, mut colors, mut entry) = (0, 0, 3);
    match size {
        12 => {
            (header.width, header.height) = (short(info, 4)?, short(info, 6)?);
            header.bits = short(info, 10)? as usize;
        }
        40 | 52 | 56 | 64 | 108 | 124 => {
            (header.width, header.height) = (number(info, 4)?, number(info, 8)?);
            header.top_down = header.height >> 24 == 0xFF;
            if header.top_down {
                header.height = header.height.wrapping_neg();
            }
            header.bits = short(info, 14)? as usize;
            (compression, colors, entry) = (number(info, 16)?, number(info, 32)?, 4);
        }
        _ => return Err(DecodeError::Bmp("an unknown header")),
    }
    let mut behind = 14 + size;
    if colors == 0 {
        colors = 1u32.checked_shl(header.bits as u32).unwrap_or(0);
    }
    if header.offset == behind && header.bits <= 8 {
        header.offset = behind.saturating_add(entry * colors as usize);
    }
    header.samples = match compression {
        0 => plain(header.bits)?,
        1 | 2 => {
            header.run_bits = compression;
            plain(header.bits)?
        }
        3 => {
            let (masks, alpha) = masks(bytes, info, &mut behind)?;
            by_masks(header.bits, masks, alpha)?
        }
        _ => return Err(DecodeError::Bmp("an unsupported compression")),
    };
    if let Samples::Indexed { bits, .. } = header.samples {
        if !(1..=65536).contains(&colors) {
            return Err(DecodeError::Bmp("a palette of an impossible size"));
        }
        let colors = colors as usize;
        let rest = bytes.get(behind..).unwrap_or(&[]);
        let palette = &rest[..rest.len().min(entry * colors)];
        header.samples = if !is_gray(palette, entry, colors) {
            if palette.len() / entry > 256 {
                return Err(DecodeError::Bmp("a palette of more than 256 colours"));
            }
            Samples::Indexed {
                bits,
                palette,
                entry,
            }
        } else if colors <= 2 {
            Samples::Bilevel
        } else {
            Samples::Gray
        };
        behind += palette.len();
    }
    if header.offset == 0 {
        header.offset = behind;
    }
    Ok(header)
}

fn plain<'a>(bits: usize) -> Result<Samples<'a>, DecodeError> {
    Ok(match bits {
        1 | 4 | 8 => Samples::Indexed {
            bits,
            palette: &[],
            entry: 4,
        },
        16 => Samples::Packed { green_bits: 5 },
        24 | 32 => Samples::Bytes {
            count: bits / 8,
            places: [2, 1, 0],
        },
        _ => return Err(DecodeError::Bmp("an unsupported depth")),
    })
}

/// Red, green and blue, and alpha. A header of 40 bytes has the first three behind it.
fn masks(bytes: &[u8], info: &[u8], behind: &mut usize) -> Result<([u32; 3], u32), DecodeError> {
    let (from, at, alpha) = match info.len() {
        ..=51 => {
            *behind += 12;
            (bytes, *behind - 12, 0)
        }
        52..=55 => (info, 40, 0),
        _ => (info, 40, number(info, 52)?),
    };
    let mask = |index: usize| number(from, at + index * 4);
    Ok(([mask(0)?, mask(1)?, mask(2)?], alpha))
}

fn by_masks<'a>(bits: usize, masks: [u32; 3], alpha: u32) -> Result<Samples<'a>, DecodeError> {
    const HIGH: u32 = 0xFF00_0000;
    let places = match (bits, masks, alpha) {
        (16, [0xF800, 0x07E0, 0x1F], _) => return Ok(Samples::Packed { green_bits: 6 }),
        (16, [0x7C00, 0x03E0, 0x1F], _) => return Ok(Samples::Packed { green_bits: 5 }),
        (24, [0xFF_0000, 0xFF00, 0xFF], _) => [2, 1, 0],
        (32, [0xFF_0000, 0xFF00, 0xFF], 0 | HIGH) | (32, [0, 0, 0], 0) => [2, 1, 0],
        (32, [HIGH, 0xFF_0000, 0xFF00], 0 | 0xFF) => [3, 2, 1],
        (32, [HIGH, 0xFF00, 0xFF], 0 | 0xFF_0000) => [3, 1, 0],
        (32, [0xFF, 0xFF00, 0xFF_0000], HIGH) => [0, 1, 2],
        _ => return Err(LAYOUT),
    };
    Ok(Samples::Bytes {
        count: bits / 8,
        places,
    })
}

/// Whether a palette says what a picture without one would: black and white, or the grey of each index.
fn is_gray(palette: &[u8], entry: usize, colors: usize) -> bool {
    (0..colors).all(|index| {
        let gray = if colors == 2 { index * 255 } else { index } as u8;
        palette.get(index * entry..index * entry + 3) == Some(&[gray; 3])
    })
}

impl Samples<'_> {
    fn row_bytes(self, columns: usize) -> usize {
        match self {
            Self::Indexed { bits, .. } => (columns * bits).div_ceil(8),
            Self::Bilevel => columns.div_ceil(8),
            Self::Gray => columns,
            Self::Packed { .. } => columns * 2,
            Self::Bytes { count, .. } => columns * count,
        }
    }

    fn expand(self, row: &[u8], out: &mut [u8]) {
        let out = out.chunks_exact_mut(3);
        match self {
            Self::Indexed {
                bits,
                palette,
                entry,
            } => {
                for (x, out) in out.enumerate() {
                    let at = x * bits;
                    let index = row[at / 8] >> (8 - bits - at % 8) & (0xFF >> (8 - bits)) as u8;
                    match palette.get(usize::from(index) * entry..).unwrap_or(&[]) {
                        [blue, green, red, ..] => out.copy_from_slice(&[*red, *green, *blue]),
                        _ => out.fill(0),
                    }
                }
            }
            Self::Bilevel => {
                for (x, out) in out.enumerate() {
                    out.fill(if row[x / 8] << (x % 8) & 0x80 == 0 {
                        0
                    } else {
                        255
                    });
                }
            }
            Self::Gray => out.zip(row).for_each(|(out, &gray)| out.fill(gray)),
            Self::Packed { green_bits } => {
                for (out, word) in out.zip(row.chunks_exact(2)) {
                    let word = u32::from(u16::from_le_bytes([word[0], word[1]]));
                    let greens = (1 << green_bits) - 1;
                    out[0] = ((word >> (5 + green_bits) & 31) * 255 / 31) as u8;
                    out[1] = ((word >> 5 & greens) * 255 / greens) as u8;
                    out[2] = ((word & 31) * 255 / 31) as u8;
                }
            }
            Self::Bytes { count, places } => {
                for (out, pixel) in out.zip(row.chunks_exact(count)) {
                    for (out, place) in out.iter_mut().zip(places) {
                        *out = pixel[place];
                    }
                }
            }
        }
    }
}

/// Runs of indices to one index a byte, in the order of the file.
///
/// Only a whole picture is one: Pillow raises where the runs end before it does.
fn expand_runs(bytes: &[u8], header: &Header<'_>, out: &mut [u8]) -> Result<(), DecodeError> {
    let columns = header.width as usize;
    let halves = header.run_bits == 2;
    let (mut at, mut filled, mut x) = (header.offset, 0, 0);
    while filled < out.len() {
        let &[count, value] = bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<2>())
            .ok_or(DecodeError::Truncated)?;
        at += 2;
        let left = out.len() - filled;
        match (count, value) {
            (0, 0) => {
                let end = filled.next_multiple_of(columns);
                out[filled..end].fill(0);
                (filled, x) = (end, 0);
            }
            (0, 1) => return Err(DecodeError::Truncated),
            (0, 2) => {
                let step = bytes.get(at..at + 2).ok_or(DecodeError::Truncated)?;
                at += 2;
                let skipped = left.min(usize::from(step[0]) + usize::from(step[1]) * columns);
                out[filled..filled + skipped].fill(0);
                filled += skipped;
                x = filled % columns;
            }
            (0, count) => {
                let run = left.min(usize::from(count));
                let length = if halves { run.div_ceil(2) } else { run };
                let literal = bytes.get(at..at + length).ok_or(DecodeError::Truncated)?;
                for (index, out) in out[filled..filled + run].iter_mut().enumerate() {
                    *out = if halves {
                        half(literal[index / 2], index)
                    } else {
                        literal[index]
                    };
                }
                at += length;
                filled += run;
                x += usize::from(count);
                at += at % 2;
            }
            (count, value) => {
                let run = usize::from(count).min(columns.saturating_sub(x)).min(left);
                for (index, out) in out[filled..filled + run].iter_mut().enumerate() {
                    *out = if halves { half(value, index) } else { value };
                }
                filled += run;
                x += run;
            }
        }
    }
    Ok(())
}

/// The high half of a byte at even places, the low one at odd ones.
fn half(byte: u8, place: usize) -> u8 {
    if place.is_multiple_of(2) {
        byte >> 4
    } else {
        byte & 15
    }
}

fn number(bytes: &[u8], at: usize) -> Result<u32, DecodeError> {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
    four.map(|&four| u32::from_le_bytes(four)).ok_or(SHORT)
}

fn short(bytes: &[u8], at: usize) -> Result<u32, DecodeError> {
    let two = bytes.get(at..).and_then(|rest| rest.first_chunk());
    two.map(|&two| u32::from(u16::from_le_bytes(two)))
        .ok_or(SHORT)
}
