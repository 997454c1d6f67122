//! Huffman decoding: tables that return a code's symbol together with the number that follows it, and the bit reader.

use super::header::{Codes, NATURAL};

/// Bits that index a table. Almost all codes are this short.
const LOOK: u32 = 10;
/// The advance for the end of a block. No run can have it.
const END: u32 = 128;

/// A decoding table: maps codes to steps.
///
/// A step packs four bytes, lowest first: the total length of code and number, how far to advance in the block, the length of
/// the code, and the length of the number. It is 0 if the code is longer than the index.
#[derive(Debug, Clone)]
pub(super) struct Table {
    codes: Codes,
    steps: Box<[u32; 1 << LOOK]>,
    /// For each length above `LOOK`: the first value, left-aligned to 16 bits, beyond all codes up to that length, and the
    /// offset from a code to the index of its symbol.
    long: [(u32, i32); 17],
}

impl Table {
    /// Builds the table, unless it was already built from `codes`. `None` if a code is impossible, or may mean a number longer
    /// than `max_bits` or something that baseline files don't have.
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

    /// The step at the start of the bits. Its length is not 0.
    #[inline(always)]
    fn step(&self, bits: u64) -> Option<u32> {
        match self.steps[(bits >> (64 - LOOK)) as usize] {
            0 => self.long_step(bits),
            step => Some(step),
        }
    }

    /// The step of a code longer than `LOOK` bits.
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

/// The number of a step. The bits start with its code.
#[inline(always)]
fn number(step: u32, bits: u64) -> i32 {
    let behind = (bits << (step >> 8 & 63)) as i64;
    // If the first bit of a number is 0, it is negative: prepend sign bits and add one.
    let signed = (behind >> 1 ^ i64::MIN) >> (step >> 16 & 63);
    (signed - (signed >> 63)) as i32
}

/// A bit reader over data without byte stuffing, high bits first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, starting at the highest. Bits beyond `count` are zeros, or the start of the bytes at `at`.
    buffer: u64,
    count: u32,
}

/// Zero bytes that must follow the data.
pub(super) const PADDING: usize = WINDOW + 8;
/// More bytes than a block can use, plus those loaded at its end.
const WINDOW: usize = 256 + 8;

impl<'a> Bits<'a> {
    /// A reader of `bytes`. The last [`PADDING`] bytes don't count.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            buffer: 0,
            count: 0,
        }
    }

    /// Whether exactly all bytes were used.
    pub(super) fn at_end(&self) -> bool {
        let counting = (self.bytes.len() - PADDING) as isize * 8;
        let used = self.at as isize * 8 - self.count as isize;
        (counting - 7..=counting).contains(&used)
    }
}

/// Index of each coefficient in a group of four blocks, whose rows are side by side.
const IN_GROUP: [u8; 64] = {
    let mut places = [0; 64];
    let mut k = 0;
    while k < 64 {
        places[k] = NATURAL[k] / 8 * 32 + NATURAL[k] % 8;
        k += 1;
    }
    places
};

/// Reads a block. If it is needed, writes the coefficients to `out`, which must contain zeros.
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
            // The shift uses the low six bits of the step, which are the length, so no mask delays the next step.
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
    // A step uses at most 27 bits, so one refill is enough for two.
    loop {
        step!();
        refill!();
        step!();
    }
    bits.at += at;
    (bits.buffer, bits.count) = (buffer, count);
    // The last coefficient, the end of the block, or a run beyond it.
    (k == 63 || k >= END as usize).then_some(())
}
