//! Huffman tables that return a code's symbol together with the number that follows it, or two of them at once.

use std::hint::black_box;

use super::tables::Codes;

/// Bits that index a table. Almost all codes are this short.
pub(super) const LOOK: u32 = 10;
/// Bits of the longest code, and a sign.
const LONG: u32 = 17;
/// The advance that marks the end of a block. No run is that long.
pub(super) const END: u8 = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbols {
    Dc,
    /// Runs of zeros and lengths of numbers, or the end of the block.
    Ac,
    /// As `Ac`, or the end of this block and the next ones.
    Band,
}

impl Symbols {
    fn has(self, symbol: u8) -> bool {
        // Longest coefficients, in bits, of a file with 8-bit samples.
        match (self, symbol >> 4, symbol & 15) {
            (Self::Dc, run, bits) => run == 0 && bits <= 11,
            (Self::Ac, run, 0) => run == 0 || run == 15,
            (Self::Band, _, 0) => true,
            (_, _, bits) => bits <= 10,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Step {
    /// Bits of the code and its number: 0 if the code is not shorter than the index.
    pub(super) total: u8,
    /// How far to advance in the block.
    pub(super) advance: u8,
    /// The bits of the code and its number minus the number, modulo 2^16.
    above: i16,
}

impl Step {
    /// The number; for an end, for how many blocks after this one it is the end. The bits start with the code.
    #[inline(always)]
    pub(super) fn number(self, bits: u64) -> i16 {
        number(bits, self.total.wrapping_neg(), self.above)
    }
}

/// The number that ends `shift` bits (modulo 64) before the end of `bits`.
#[inline(always)]
fn number(bits: u64, shift: u8, above: i16) -> i16 {
    ((bits >> (shift & 63)) as i16).wrapping_sub(above)
}

/// Maps codes to steps.
#[derive(Debug)]
pub(super) struct Table {
    /// `None` if it cannot be used.
    of: Option<(Codes, Symbols)>,
    steps: [Step; 1 << LOOK],
    /// The steps of the other codes, by the next `LONG` bits minus `first_long`.
    long: Vec<Step>,
    first_long: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { of: None, steps: [Step::default(); 1 << LOOK], long: Vec::new(), first_long: 0 }
    }
}

impl Table {
    /// `None` if a code is impossible, or an ordinary file does not have it.
    pub(super) fn make(&mut self, codes: &Codes, symbols: Symbols) -> Option<()> {
        if self.of == Some((*codes, symbols)) {
            return Some(());
        }
        self.of = None;
        self.steps.fill(Step::default());
        self.long.clear();
        let (mut code, mut place) = (0u32, 0usize);
        for (length, &count) in (1..=16u32).zip(&codes.counts) {
            if length == LOOK {
                self.first_long = (code as usize) << (LONG - length);
            }
            for _ in 0..count {
                let symbol = codes.symbols[place];
                place += 1;
                // No code may be all ones, as in libjpeg.
                if code + 1 >= 1 << length || !symbols.has(symbol) {
                    return None;
                }
                for sign in [0, 1] {
                    let step = step_of(code, length, symbol, sign == 0);
                    if length < LOOK {
                        let same = 1 << (LOOK - length - 1);
                        self.steps[(2 * code as usize + sign) * same..][..same].fill(step);
                    } else {
                        let same = 1 << (LONG - length - 1);
                        self.long.extend(std::iter::repeat_n(step, same));
                    }
                }
                code += 1;
            }
            code <<= 1;
        }
        self.of = Some((*codes, symbols));
        Some(())
    }

    /// The step at the start of the bits; its length is 0 if the code is not shorter than the index.
    #[inline(always)]
    pub(super) fn look_up(&self, bits: u64) -> Step {
        self.steps[(bits >> (64 - LOOK)) as usize]
    }

    /// The step at the start of the bits, however long its code.
    #[inline(always)]
    pub(super) fn step(&self, bits: u64) -> Option<Step> {
        let step = self.look_up(bits);
        if step.total == 0 { self.long_step(bits) } else { Some(step) }
    }

    /// As `step`, if the code is not shorter than the index. `None` if there is no such code.
    #[inline(always)]
    pub(super) fn long_step(&self, bits: u64) -> Option<Step> {
        self.long.get(((bits >> (64 - LONG)) as usize).wrapping_sub(self.first_long)).copied()
    }
}

fn step_of(code: u32, length: u32, symbol: u8, negative: bool) -> Step {
    let (run, size) = (symbol >> 4, symbol & 15);
    if size == 0 && run < 15 {
        // The end of a block. The run says how many bits follow, and these say for how many blocks it is the end.
        let above = (code << run).wrapping_sub((1 << run) - 1);
        return Step { total: length as u8 + run, advance: END, above: above as i16 };
    }
    // A negative number is its bits minus the largest number of as many bits.
    let above = (code << size) + if negative { (1 << size) - 1 } else { 0 };
    Step { total: length as u8 + size, advance: run + 1, above: above as i16 }
}

/// Maps the next bits to one step or two.
#[derive(Debug)]
pub(super) struct PairTable {
    pub(super) single: Table,
    pairs: [Pair; 1 << LOOK],
}

impl Default for PairTable {
    fn default() -> Self {
        Self { single: Table::default(), pairs: [Pair::default(); 1 << LOOK] }
    }
}

/// The end of a block always takes the second slot. Loading each field by itself takes fewer instructions than shifts and masks
/// of one word.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(8))]
pub(super) struct Pair {
    pub(super) total: u8,
    /// Minus the bits of the first, modulo 256.
    shift: u8,
    /// How far the first advances: by 1 at the end of the block.
    pub(super) advance: u8,
    /// How far both advance: [`END`] if the block ends at once, more if it ends after a step. [`BEYOND`] if the code is not
    /// shorter than the index.
    pub(super) both: u8,
    above: i16,
    /// The number of the second step; unspecified if there is none.
    pub(super) second: i16,
}

impl Pair {
    #[inline(always)]
    pub(super) fn number(&self, bits: u64) -> i16 {
        number(bits, self.shift, self.above)
    }
}

/// The advance of an entry for a long code. No two steps can have it.
pub(super) const BEYOND: u8 = 64;

impl PairTable {
    /// As [`Table::make`].
    pub(super) fn make(&mut self, codes: &Codes, symbols: Symbols) -> Option<()> {
        if self.single.of != Some((*codes, symbols)) {
            self.single.make(codes, symbols)?;
            for (index, pair) in self.pairs.iter_mut().enumerate() {
                *pair = pair_of(&self.single.steps, index);
            }
        }
        Some(())
    }

    #[inline(always)]
    pub(super) fn look_up(&self, bits: u64) -> &Pair {
        &self.pairs[(bits >> (64 - LOOK)) as usize]
    }

    /// Prefetches the table into L1; sequential loads stall less than scattered ones.
    pub(super) fn fetch(&self) {
        const IN_LINE: usize = 64 / size_of::<Pair>();
        let all = self.pairs.iter().step_by(IN_LINE).fold(0, |all, pair| all | pair.both);
        black_box(all);
    }
}

/// The tables of a file, by number.
#[derive(Debug, Default)]
pub(super) struct TableSet {
    pub(super) dc: [Table; 4],
    pub(super) ac: [PairTable; 4],
}

/// The steps at the start of the bits of an index. No branches, since they could not be predicted.
#[inline(always)]
fn pair_of(steps: &[Step; 1 << LOOK], index: usize) -> Pair {
    let first = steps[index];
    let bits = ((index as u64) << (64 - LOOK)).wrapping_shl(first.total.into());
    let second = steps[(bits >> (64 - LOOK)) as usize];
    let (total, number) = (first.total + second.total, second.number(bits));
    let ends = first.advance == END;
    // How many blocks end is read only if the end comes first.
    let ends_several = (second.advance == END) & (number != 0);
    let fits = (second.total != 0) & (u32::from(total) <= LOOK);
    let (total, both, number) = if (first.total != 0) & !ends & fits & !ends_several {
        (total, first.advance + second.advance, number)
    } else {
        (first.total, first.advance, 0)
    };
    Pair {
        total,
        shift: first.total.wrapping_neg(),
        advance: if ends { 1 } else { first.advance },
        both: if first.total == 0 { BEYOND } else { both },
        above: first.above,
        second: number,
    }
}
