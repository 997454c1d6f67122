//! Huffman tables that return a code's symbol together with the number that follows it, or two of them at once.

use super::tables::Codes;

/// Bits that index a table. Almost all codes are this short.
pub(super) const LOOK: u32 = 10;
/// The advance that marks the end of a block. No run is that long.
pub(super) const END: u8 = 128;

/// What the symbols of a table mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbols {
    /// Lengths of numbers.
    Dc,
    /// Runs of zeros and lengths of numbers, or the end of the block.
    Ac,
    /// As `Ac`, or the end of this block and the next ones.
    Band,
}

impl Symbols {
    /// Whether an ordinary file can have the symbol.
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

/// What a code says.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Step {
    /// Bits of the code and its number: 0 if the code is longer than the index.
    pub(super) total: u8,
    /// Bits of the code.
    code: u8,
    /// 31 minus the bits of the number.
    shift: u8,
    /// How far to advance in the block.
    pub(super) advance: u8,
}

/// A decoding table: maps codes to steps.
#[derive(Debug, Clone)]
pub(super) struct Table {
    codes: Codes,
    symbols: Symbols,
    steps: Box<[Step; 1 << LOOK]>,
    /// For each length above `LOOK`: the first value, left-aligned to 16 bits, beyond all codes up to that length, and the
    /// offset from a code to the index of its symbol.
    long: [(u32, i32); 17],
}

impl Table {
    /// Builds the table, unless it was already built. `None` if a code is impossible, or an ordinary file does not have it.
    pub(super) fn make(slot: &mut Option<Self>, codes: &Codes, symbols: Symbols) -> Option<()> {
        let same = |table: &Self| table.codes == *codes && table.symbols == symbols;
        if slot.as_ref().is_some_and(same) {
            return Some(());
        }
        let mut steps = match slot.take() {
            Some(table) => table.steps,
            None => Box::new([Step::default(); 1 << LOOK]),
        };
        steps.fill(Step::default());
        let mut long = [(0, 0); 17];
        let (mut code, mut place) = (0u32, 0usize);
        for (length, &count) in (1..=16u32).zip(&codes.counts) {
            let first = place as i32 - code as i32;
            for _ in 0..count {
                let symbol = codes.symbols[place];
                place += 1;
                // No code may be all ones, as in libjpeg.
                if code + 1 >= 1 << length || !symbols.has(symbol) {
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
        *slot = Some(Self { codes: *codes, symbols, steps, long });
        Some(())
    }

    /// The step at the start of the bits. Its length is 0 if its code is longer than the index.
    #[inline(always)]
    pub(super) fn look_up(&self, bits: u64) -> Step {
        self.steps[(bits >> (64 - LOOK)) as usize]
    }

    /// The step that [`Self::look_up`] found, or that of a longer code. Its length is not 0.
    #[inline(always)]
    pub(super) fn or_long(&self, found: Step, bits: u64) -> Option<Step> {
        if found.total == 0 { self.long_step(bits) } else { Some(found) }
    }

    /// The step of a code longer than `LOOK` bits.
    #[cold]
    #[inline(never)]
    fn long_step(&self, bits: u64) -> Option<Step> {
        let top = (bits >> 48) as u32;
        // Counted, because the branches of a search could not be predicted.
        let shorter = (LOOK + 1..=16).filter(|&length| top >= self.long[length as usize].0);
        let length = LOOK + 1 + shorter.count() as u32;
        if length > 16 {
            return None;
        }
        let place = (top >> (16 - length)) as i32 + self.long[length as usize].1;
        let symbol = *self.codes.symbols.get(usize::try_from(place).ok()?)?;
        Some(step_of(length, symbol))
    }
}

fn step_of(length: u32, symbol: u8) -> Step {
    let (code, run, size) = (length as u8, symbol >> 4, symbol & 15);
    if size == 0 && run < 15 {
        // The end of a block. The run says how many bits follow, and these say for how many blocks it is the end.
        return Step { total: code + run, code, shift: 31, advance: END };
    }
    Step { total: code + size, code, shift: 31 - size, advance: run + 1 }
}

/// How many blocks after this one a step ends. The bits start with its code.
#[inline(always)]
pub(super) fn blocks_ended(step: Step, bits: u64) -> u32 {
    let size = u32::from(step.total - step.code);
    let behind = bits << (step.code & 63);
    (1 << size) - 1 + (behind >> 1 >> ((63 - size) & 63)) as u32
}

/// The number of a step. The bits start with its code.
#[inline(always)]
pub(super) fn number(step: Step, bits: u64) -> i32 {
    let behind = (bits << (step.code & 63)) as i64;
    // If the first bit of a number is 0, it is negative: prepend sign bits and add one.
    let signed = ((behind >> 33) as i32 ^ i32::MIN) >> (step.shift & 31);
    signed - (signed >> 31)
}

/// A table that maps the next bits to one step or to two.
#[derive(Debug, Clone)]
pub(super) struct PairTable {
    pub(super) single: Table,
    pairs: Box<[Pair; 1 << LOOK]>,
}

/// One step or two. An end of the block is the second step, also if it comes first.
///
/// Each field is loaded on its own. That takes fewer instructions than shifts and masks of one word.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(8))]
pub(super) struct Pair {
    /// The first step, but with the length of both. If the end of the block comes first, it has no number, and advances by 1.
    pub(super) step: Step,
    /// How far both advance: at least [`END`] at the end of the block, [`BEYOND`] for a code longer than the index.
    pub(super) both: u8,
    /// Whether the end of the block comes first.
    pub(super) only_end: bool,
    /// The number of the second step; unspecified if there is none.
    pub(super) second: i16,
}

/// The advance of an entry that stands for a long code. No two steps can have it.
const BEYOND: u8 = 64;

impl PairTable {
    /// As [`Table::make`].
    pub(super) fn make(slot: &mut Option<Self>, codes: &Codes, symbols: Symbols) -> Option<()> {
        let same = |table: &Self| table.single.codes == *codes && table.single.symbols == symbols;
        if slot.as_ref().is_some_and(same) {
            return Some(());
        }
        let (mut single, mut pairs) = match slot.take() {
            Some(table) => (Some(table.single), table.pairs),
            None => (None, Box::new([Pair::default(); 1 << LOOK])),
        };
        Table::make(&mut single, codes, symbols)?;
        let single = single?;
        for (index, pair) in pairs.iter_mut().enumerate() {
            *pair = pair_of(&single.steps, index);
        }
        *slot = Some(Self { single, pairs });
        Some(())
    }

    /// The steps for each value of the next bits.
    #[inline(always)]
    pub(super) fn pairs(&self) -> &[Pair; 1 << LOOK] {
        &self.pairs
    }
}

/// The steps at the start of the bits of an index.
fn pair_of(steps: &[Step; 1 << LOOK], index: usize) -> Pair {
    let step = steps[index];
    let alone = Pair { step, both: step.advance, only_end: false, second: 0 };
    let used = u32::from(step.total);
    if used == 0 {
        return Pair { both: BEYOND, ..alone };
    }
    if step.advance == END {
        return Pair { step: Step { advance: 1, ..step }, only_end: true, ..alone };
    }
    if used >= LOOK {
        return alone;
    }
    let bits = (index as u64) << (64 - LOOK) << used;
    let second = steps[(bits >> (64 - LOOK)) as usize];
    let total = step.total + second.total;
    // The number after the end of several blocks is read only if the end comes first.
    let ends_several = second.advance == END && second.total != second.code;
    if second.total == 0 || u32::from(total) > LOOK || ends_several {
        return alone;
    }
    Pair {
        step: Step { total, ..step },
        both: step.advance + second.advance,
        only_end: false,
        second: number(second, bits) as i16,
    }
}
