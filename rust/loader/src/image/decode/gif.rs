//! The first frame of a GIF, with Pillow's reading of the format's loose ends.
//!
//! Written here because the pixels of odd files are Pillow's own choices: a grey ramp for a palette stands for none, what
//! the frame does not cover has index 0 or the transparent one, a colour that the palette lacks is black.

use super::{DecodeError, Rgb8, check_size};

const TABLE: usize = 4096;
const MAX_BITS: u32 = 12;

/// What stands before the codes of the first frame.
struct Frame<'a> {
    canvas: (u32, u32),
    left: u32,
    top: u32,
    width: u32,
    height: u32,
    interlaced: bool,
    /// RGB triples; `None` is the grey ramp.
    palette: Option<&'a [u8]>,
    transparent: Option<u8>,
}

pub(super) fn decode(bytes: &[u8], max_pixels: u64, into: &mut Rgb8) -> Result<(), DecodeError> {
    let mut input = Input { bytes, at: 6 };
    let frame = header(&mut input)?;
    let (width, height) = frame.canvas;
    check_size(width, height, max_pixels)?;
    if frame.width == 0 || frame.height == 0 {
        return Err(DecodeError::Gif("an empty frame"));
    }
    let bits = u32::from(input.byte()?);
    if bits > MAX_BITS {
        return Err(DecodeError::Gif("codes of too many bits"));
    }
    let colours = colours(frame.palette);
    let pixels = into.reshape(width, height);
    if (frame.width, frame.height) != (width, height) {
        let around = colours[usize::from(frame.transparent.unwrap_or(0))];
        pixels
            .chunks_exact_mut(3)
            .for_each(|pixel| pixel.copy_from_slice(&around));
    }
    let mut lines = Lines::new(frame.height, frame.interlaced);
    let start = |y: u32| {
        ((u64::from(frame.top + y) * u64::from(width) + u64::from(frame.left)) * 3) as usize
    };
    let (mut at, mut column) = (start(0), 0);
    unpack(&mut input, bits, |index| {
        pixels[at..at + 3].copy_from_slice(&colours[usize::from(index)]);
        at += 3;
        column += 1;
        if column < frame.width {
            return true;
        }
        let Some(y) = lines.next() else { return false };
        (at, column) = (start(y), 0);
        true
    })
}

fn header<'a>(input: &mut Input<'a>) -> Result<Frame<'a>, DecodeError> {
    let (mut width, mut height) = (input.number()?, input.number()?);
    let flags = input.byte()?;
    input.take(2)?;
    let global = input.palette(flags)?;
    let mut transparent = None;
    loop {
        match input.byte()? {
            b'!' => extension(input, &mut transparent)?,
            b',' => break,
            b';' => return Err(DecodeError::Gif("no picture before the end")),
            _ => {}
        }
    }
    let [left, top] = [input.number()?, input.number()?];
    let [frame_width, frame_height] = [input.number()?, input.number()?];
    width = width.max(left + frame_width);
    height = height.max(top + frame_height);
    let flags = input.byte()?;
    let local = input.palette(flags)?;
    Ok(Frame {
        canvas: (width, height),
        left,
        top,
        width: frame_width,
        height: frame_height,
        interlaced: flags & 0x40 != 0,
        palette: local.or(global),
        transparent,
    })
}

/// Passes over an extension. Of a graphic control the transparent index counts.
fn extension(input: &mut Input<'_>, transparent: &mut Option<u8>) -> Result<(), DecodeError> {
    let kind = input.byte()?;
    let first = input.block();
    match (kind, first) {
        (0xF9, Some(block)) => match block {
            [flags, _, _, index, ..] if flags & 1 != 0 => *transparent = Some(*index),
            [flags, _, _, ..] if flags & 1 == 0 => {}
            _ => return Err(DecodeError::Gif("a short graphic control")),
        },
        // A comment without text ends at once; any other extension is followed by blocks even then.
        (0xFE, None) => return Ok(()),
        _ => {}
    }
    while input.block().is_some() {}
    Ok(())
}

/// The colour of each index; black past the palette's end.
fn colours(palette: Option<&[u8]>) -> [[u8; 3]; 256] {
    let Some(palette) = palette else {
        return std::array::from_fn(|index| [index as u8; 3]);
    };
    let mut colours = [[0; 3]; 256];
    for (colour, rgb) in colours.iter_mut().zip(palette.chunks_exact(3)) {
        colour.copy_from_slice(rgb);
    }
    colours
}

/// The rows of a frame in the order in which they are stored.
struct Lines {
    y: u32,
    step: u32,
    height: u32,
    /// Where the passes still to come begin, and their steps.
    passes: &'static [(u32, u32)],
}

impl Lines {
    fn new(height: u32, interlaced: bool) -> Self {
        Self {
            y: 0,
            step: if interlaced { 8 } else { 1 },
            height,
            passes: if interlaced {
                &[(4, 8), (2, 4), (1, 2)]
            } else {
                &[]
            },
        }
    }

    fn next(&mut self) -> Option<u32> {
        self.y += self.step;
        while self.y >= self.height {
            let (&(first, step), rest) = self.passes.split_first()?;
            (self.y, self.step, self.passes) = (first, step, rest);
        }
        Some(self.y)
    }
}

/// Expands the codes until `put`, which is given each index, wants no more.
fn unpack(
    input: &mut Input<'_>,
    bits: u32,
    mut put: impl FnMut(u8) -> bool,
) -> Result<(), DecodeError> {
    const BROKEN: DecodeError = DecodeError::Gif("a code that means nothing");
    let (clear, end) = (1usize << bits, (1usize << bits) + 1);
    // Of each string its last index, and the string before that.
    let mut last_index = [0u8; TABLE];
    let mut before = [0u16; TABLE];
    let mut stack = [0u8; TABLE];
    let mut codes = Codes::default();
    let (mut next, mut size) = (clear + 2, bits + 1);
    let (mut first, mut previous) = (0u8, None);
    loop {
        let code = codes.next(input, size)?;
        if code == clear {
            (next, size, previous) = (clear + 2, bits + 1, None);
            continue;
        }
        if code == end {
            return Err(DecodeError::Truncated);
        }
        let Some(known) = previous else {
            if code > clear {
                return Err(BROKEN);
            }
            (first, previous) = (code as u8, Some(code));
            if !put(first) {
                return Ok(());
            }
            continue;
        };
        if code > next {
            return Err(BROKEN);
        }
        let (mut string, mut depth) = (code, 0);
        let mut push = |index: u8| {
            *stack.get_mut(depth).ok_or(BROKEN)? = index;
            depth += 1;
            Ok::<_, DecodeError>(())
        };
        if code == next {
            // The string that this very code completes: the one before it, and its first index again.
            push(first)?;
            string = known;
        }
        while string >= clear {
            push(*last_index.get(string).ok_or(BROKEN)?)?;
            string = usize::from(before[string]);
        }
        first = string as u8;
        if next < TABLE {
            (last_index[next], before[next]) = (first, known as u16);
            if next == (1 << size) - 1 && size < MAX_BITS {
                size += 1;
            }
            next += 1;
        }
        previous = Some(code);
        if !put(first) || !stack[..depth].iter().rev().all(|&index| put(index)) {
            return Ok(());
        }
    }
}

/// Codes of varying size, from the low bits up, across the blocks of the file.
#[derive(Default)]
struct Codes {
    bits: u32,
    count: u32,
    left_in_block: usize,
}

impl Codes {
    fn next(&mut self, input: &mut Input<'_>, size: u32) -> Result<usize, DecodeError> {
        while self.count < size {
            if self.left_in_block == 0 {
                // An empty block is passed over, and one that is not there as a whole is not begun, as in Pillow.
                self.left_in_block = usize::from(input.byte()?);
                if input.bytes.len() - input.at < self.left_in_block {
                    return Err(DecodeError::Truncated);
                }
                continue;
            }
            self.bits |= u32::from(input.byte()?) << self.count;
            self.count += 8;
            self.left_in_block -= 1;
        }
        let code = self.bits & ((1 << size) - 1);
        self.bits >>= size;
        self.count -= size;
        Ok(code as usize)
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..count));
        self.at += count;
        taken.ok_or(DecodeError::Truncated)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32, DecodeError> {
        let bytes = self.take(2)?;
        Ok(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    /// A block of an extension; nothing at the end of the extension or of the file.
    fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.byte().ok().filter(|&length| length > 0)?;
        let end = self.bytes.len().min(self.at + usize::from(length));
        let block = &self.bytes[self.at..end];
        self.at = end;
        Some(block).filter(|block| !block.is_empty())
    }

    /// The palette that the flags announce, unless each colour is the grey of its index, as in a picture without palette.
    fn palette(&mut self, flags: u8) -> Result<Option<&'a [u8]>, DecodeError> {
        if flags & 0x80 == 0 {
            return Ok(None);
        }
        let palette = self.take(3 << ((flags & 7) + 1))?;
        let mut entries = palette.chunks_exact(3).enumerate();
        let ramp = entries.all(|(index, rgb)| rgb.iter().all(|&level| usize::from(level) == index));
        Ok((!ramp).then_some(palette))
    }
}
