//! Huffman codes: tables that give a code's symbol and the number behind it at once, and the bits they are looked up by.

use super::header::{Codes, NATURAL};

/// Bits that index a table: nearly all codes are not longer.
const LOOK: u32 = 10;
/// The advance of an end of block, which no run can give.
const END: u32 = 128;

/// Codes → steps.
///
/// A step packs four bytes, from the low one up: the length of code and number together, how far to go on in the block, the
/// length of the code, and that of the number. Where the code does not fit the index, it is 0.
#[derive(Debug, Clone)]
pub(super) struct Table {
    codes: Codes,
    steps: Box<[u32; 1 << LOOK]>,
    /// Of each length past `LOOK`: the first value, left-aligned to 16 bits, that is no code of it or a shorter one, and
    /// what to add to a code to get its symbol's place.
    long: [(u32, i32); 17],
}

impl Table {
    /// Makes the table, unless `codes` are what it was made of. Nothing where a code is impossible, or may stand for a
    /// number past `max_bits` or for something that a baseline file has not.
    pub(super) fn make(
        slot: &mut Option<Self>,
        codes: &Codes,
        max_bits: u8,
        runs: bool,
    ) -> Option<()> {
        if slot.as_ref().is_some_and(|table| table.codes == *codes) {
            return Some(());
        }
        let mut steps = match slot.take() {
            Some(table) => table.steps,
            None => Box::new([0; 1 << LOOK]),
        };
        steps.fill(0);
        let mut long = [(0, 0); 17];
        let (mut code, mut place) = (0u32, 0usize);
        for (length, &count) in (1..=16u32).zip(&codes.counts) {
            let first = place as i32 - code as i32;
            for _ in 0..count {
                let symbol = codes.symbols[place];
                place += 1;
                let (run, bits) = (symbol >> 4, symbol & 15);
                let usual = bits <= max_bits
                    && if bits == 0 {
                        run == 0 || run == 15
                    } else {
                        true
                    };
                if code >= 1 << length || !usual || !(runs || run == 0) {
                    return None;
                }
                if length <= LOOK {
                    let same = 1 << (LOOK - length);
                    steps[code as usize * same..][..same].fill(step_of(length, symbol));
                }
                code += 1;
            }
            long[length as usize] = (code << (16 - length), first);
            code <<= 1;
        }
        *slot = Some(Self {
            codes: *codes,
            steps,
            long,
        });
        Some(())
    }

    /// The step that the bits begin with; its length is not 0.
    #[inline(always)]
    fn step(&self, bits: u64) -> Option<u32> {
        match self.steps[(bits >> (64 - LOOK)) as usize] {
            0 => self.long_step(bits),
            step => Some(step),
        }
    }

    /// The step of a code past `LOOK` bits.
    #[cold]
    #[inline(never)]
    fn long_step(&self, bits: u64) -> Option<u32> {
        let top = (bits >> 48) as u32;
        let mut lengths = LOOK + 1..=16;
        let length = lengths.find(|&length| top < self.long[length as usize].0)?;
        let place = (top >> (16 - length)) as i32 + self.long[length as usize].1;
        let symbol = *self.codes.symbols.get(usize::try_from(place).ok()?)?;
        Some(step_of(length, symbol))
    }
}

fn step_of(length: u32, symbol: u8) -> u32 {
    let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
    let advance = if symbol == 0 { END } else { run + 1 };
    advance << 24 | (63 - size) << 16 | length << 8 | (length + size)
}

/// The number of a step, of which the bits are those that its code begins with.
#[inline(always)]
fn number(step: u32, bits: u64) -> i32 {
    let behind = (bits << (step >> 8 & 63)) as i64;
    // A number whose first bit is 0 is negative, and one more than its bits below a sign: which is put before them.
    let signed = (behind >> 1 ^ i64::MIN) >> (step >> 16 & 63);
    (signed - (signed >> 63)) as i32
}

/// Bits of bytes without stuffing, from the high ones down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, from the highest down. Those past `count` are what the bytes at `at` begin with, or zeros.
    buffer: u64,
    count: u32,
}

/// Bytes, all zeros, that must follow those which count.
pub(super) const PADDING: usize = WINDOW + 8;
/// More bytes than a block can take, and those that are loaded at its end.
const WINDOW: usize = 256 + 8;

impl<'a> Bits<'a> {
    /// The bits of `bytes`, of which the last [`PADDING`] do not count.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            buffer: 0,
            count: 0,
        }
    }

    /// Whether the bytes are used up to the last, and no further.
    pub(super) fn at_end(&self) -> bool {
        let counting = (self.bytes.len() - PADDING) as isize * 8;
        let used = self.at as isize * 8 - self.count as isize;
        (counting - 7..=counting).contains(&used)
    }
}

/// Places of the coefficients in a group of four blocks, whose rows stand side by side.
const IN_GROUP: [u8; 64] = {
    let mut places = [0; 64];
    let mut k = 0;
    while k < 64 {
        places[k] = NATURAL[k] / 8 * 32 + NATURAL[k] % 8;
        k += 1;
    }
    places
};

/// Reads a block, and writes its coefficients to `out`, which holds zeros, where they are kept.
#[inline(always)]
pub(super) fn read_block<const KEEP: bool>(
    bits: &mut Bits<'_>,
    dc: &Table,
    ac: &Table,
    predicted: &mut i32,
    out: &mut [i16; 256],
) -> Option<()> {
    let window = bits.bytes.get(bits.at..)?.first_chunk::<WINDOW>()?;
    let (mut at, mut buffer, mut count) = (0usize, bits.buffer, bits.count);
    macro_rules! refill {
        () => {
            let word = window[at & 255..].first_chunk::<8>()?;
            buffer |= u64::from_be_bytes(*word) >> count;
            at += ((63 - count) >> 3) as usize;
            count |= 56;
        };
    }
    macro_rules! skip {
        ($step:ident) => {
            // The shift takes the low six bits, which are the length: no mask stands on the way to the next step.
            buffer = buffer.wrapping_shl($step);
            count -= $step & 0xFF;
        };
    }
    refill!();
    let step = dc.step(buffer)?;
    *predicted = predicted.checked_add(number(step, buffer))?;
    skip!(step);
    if KEEP {
        out[0] = *predicted as i16;
    }
    let mut k = 0;
    macro_rules! step {
        () => {{
            let step = ac.step(buffer)?;
            let number = number(step, buffer);
            skip!(step);
            k += (step >> 24) as usize;
            let Some(&place) = IN_GROUP.get(k) else {
                break;
            };
            if KEEP {
                out[usize::from(place)] = number as i16;
            }
            if k == 63 {
                break;
            }
        }};
    }
    // A step takes 27 bits at most, so that two of them need one refill.
    loop {
        step!();
        refill!();
        step!();
    }
    bits.at += at;
    (bits.buffer, bits.count) = (buffer, count);
    // The last coefficient, the end of the block, or a run past it.
    (k == 63 || k >= END as usize).then_some(())
}
