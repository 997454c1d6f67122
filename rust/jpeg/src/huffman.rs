//! Huffman tables that return a code's symbol together with the number that follows it, or two of them at once.

use super::tables::Codes;

/// Bits that index a table. Almost all codes are this short.
pub(super) const LOOK: u32 = 10;
/// The advance for the end of a block. No run can have it.
pub(super) const END: u32 = 128;

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

/// A decoding table: maps codes to steps.
///
/// A step packs four bytes, lowest first: the total length of code and number, how far to advance in the block, the length of
/// the code, and the length of the number. It is 0 if the code is longer than the index.
#[derive(Debug, Clone)]
pub(super) struct Table {
    codes: Codes,
    symbols: Symbols,
    steps: Box<[u32; 1 << LOOK]>,
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
                if code >= 1 << length || !symbols.has(symbol) {
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
            symbols,
            steps,
            long,
        });
        Some(())
    }

    /// The step at the start of the bits, or 0 if its code is longer than the index.
    #[inline(always)]
    pub(super) fn look_up(&self, bits: u64) -> u32 {
        self.steps[(bits >> (64 - LOOK)) as usize]
    }

    /// What was found, or the step of a longer code. Its length is not 0.
    #[inline(always)]
    pub(super) fn or_long(&self, found: u32, bits: u64) -> Option<u32> {
        if found == 0 {
            self.long_step(bits)
        } else {
            Some(found)
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
    if size == 0 && run < 15 {
        // The end of a block. As many bits as the run says follow, for how many blocks it is the end of.
        return END << 24 | 63 << 16 | length << 8 | (length + run);
    }
    (run + 1) << 24 | (63 - size) << 16 | length << 8 | (length + size)
}

/// How many blocks after this one a step ends. The bits start with its code.
#[inline(always)]
pub(super) fn blocks_ended(step: u32, bits: u64) -> u32 {
    let (length, total) = (step >> 8 & 0xFF, step & 0xFF);
    let size = total - length;
    let behind = bits << (length & 63);
    (1 << size) - 1 + (behind >> 1 >> ((63 - size) & 63)) as u32
}

/// The number of a step. The bits start with its code.
#[inline(always)]
pub(super) fn number(step: u32, bits: u64) -> i32 {
    let behind = (bits << (step >> 8 & 63)) as i64;
    // If the first bit of a number is 0, it is negative: prepend sign bits and add one.
    let signed = (behind >> 1 ^ i64::MIN) >> (step >> 16 & 63);
    (signed - (signed >> 63)) as i32
}

/// A table that maps the next bits to one step or to two.
///
/// An entry packs two steps. The lowest byte is the length of all; the next three are those of the first step. The fifth is how
/// far both advance, and the highest two are the second number. If there is no second step, its number is of no account. An
/// end of the block is the second step, also if it comes first ([`ONLY_END`]). For a code longer than the index, the fifth byte
/// is [`BEYOND`].
#[derive(Debug, Clone)]
pub(super) struct PairTable {
    pub(super) single: Table,
    pairs: Box<[u64; 1 << LOOK]>,
}

/// The third and fourth byte of an entry that has only the end of a block: an advance by 1 to a number of no bits, which is 0.
pub(super) const ONLY_END: u64 = 1 << 8 | 63;
/// The advance of an entry that stands for a long code. No two steps can have it.
const BEYOND: u64 = 64;

impl PairTable {
    /// As [`Table::make`].
    pub(super) fn make(slot: &mut Option<Self>, codes: &Codes, symbols: Symbols) -> Option<()> {
        let same = |table: &Self| table.single.codes == *codes && table.single.symbols == symbols;
        if slot.as_ref().is_some_and(same) {
            return Some(());
        }
        let (mut single, mut pairs) = match slot.take() {
            Some(table) => (Some(table.single), table.pairs),
            None => (None, Box::new([0; 1 << LOOK])),
        };
        Table::make(&mut single, codes, symbols)?;
        let single = single?;
        for (index, pair) in pairs.iter_mut().enumerate() {
            *pair = pair_of(&single.steps, index);
        }
        *slot = Some(Self { single, pairs });
        Some(())
    }

    /// The steps at the start of the bits.
    #[inline(always)]
    pub(super) fn look_up(&self, bits: u64) -> u64 {
        self.pairs[(bits >> (64 - LOOK)) as usize]
    }
}

/// The steps at the start of the bits of an index.
fn pair_of(steps: &[u32; 1 << LOOK], index: usize) -> u64 {
    let first = steps[index];
    let (used, advance) = (first & 0xFF, first >> 24);
    if first == 0 {
        return BEYOND << 32;
    }
    if advance == END {
        return u64::from(END) << 32 | ONLY_END << 16 | u64::from(first & 0xFFFF);
    }
    let alone = u64::from(advance) << 32 | u64::from(first);
    if used >= LOOK {
        return alone;
    }
    let bits = (index as u64) << (64 - LOOK) << used;
    let second = steps[(bits >> (64 - LOOK)) as usize];
    let total = used + (second & 0xFF);
    // The number behind the end of several blocks is read only if the end comes first.
    let ends_several = second >> 24 == END && second & 0xFF != second >> 8 & 0xFF;
    if second == 0 || total > LOOK || ends_several {
        return alone;
    }
    let number = u64::from(number(second, bits) as i16 as u16);
    let both = u64::from(advance + (second >> 24));
    number << 48 | both << 32 | u64::from(first & 0xFFFF_FF00 | total)
}
