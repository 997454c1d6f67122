//! Reads the coefficients of a block from entropy-coded data.

use super::huffman::{END, LOOK, PairTable, Table, blocks_ended, number};
use super::tables::NATURAL;

/// A bit reader over data without byte stuffing, high bits first. The bytes are in reverse order, from the end of the slice on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, starting at the highest. Bits beyond `count` are zeros, or the start of the byte `at`.
    buffer: u64,
    /// Between steps at least [`LOOK`].
    count: u32,
}

/// Zeros that must follow the data.
pub(super) const PADDING: usize = WINDOW + 8;
/// More bytes than a block can use, and a mask: all its bits are ones.
const BLOCK: usize = 255;
/// Those, and the ones that are loaded at its end.
const WINDOW: usize = BLOCK + 8;

impl<'a> Bits<'a> {
    /// A reader of `bytes`. The last [`PADDING`] ones don't count: those at the start of the slice.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self {
            bytes,
            at: 7,
            buffer: u64::from_le_bytes(*bytes.last_chunk::<8>()?),
            count: 56,
        })
    }

    /// Whether exactly all bytes were used.
    pub(super) fn at_end(&self) -> bool {
        let counting = (self.bytes.len() - PADDING) as isize * 8;
        let used = self.at as isize * 8 - self.count as isize;
        (counting - 7..=counting).contains(&used)
    }

    /// A reader of the bits of one block.
    #[inline(always)]
    fn block(&self) -> Option<BlockBits<'a>> {
        Some(BlockBits {
            window: self.bytes.get(..self.bytes.len().checked_sub(self.at)?)?.last_chunk()?,
            at: BLOCK,
            buffer: self.buffer,
            count: self.count,
        })
    }

    /// Continues after a block.
    #[inline(always)]
    fn continue_behind(&mut self, block: BlockBits<'_>) {
        self.at += BLOCK - block.at;
        (self.buffer, self.count) = (block.buffer, block.count);
    }
}

/// A bit reader within one block, which needs fewer checks.
struct BlockBits<'a> {
    window: &'a [u8; WINDOW],
    /// Where the next bytes are loaded from. It moves towards 0.
    at: usize,
    buffer: u64,
    count: u32,
}

impl BlockBits<'_> {
    /// Loads bits until there are at least 56.
    #[inline(always)]
    fn refill(&mut self) -> Option<()> {
        let word = self.window[self.at & BLOCK..].first_chunk::<8>()?;
        self.buffer |= u64::from_le_bytes(*word) >> self.count;
        self.at -= ((63 - self.count) >> 3) as usize;
        self.count |= 56;
        Some(())
    }

    /// Skips so many bits.
    #[inline(always)]
    fn skip(&mut self, length: u8) {
        self.buffer = self.buffer.wrapping_shl(length.into());
        self.count -= u32::from(length);
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

/// A block: where its coefficients go, and the tables of its codes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) dc: &'a Table,
    pub(super) ac: &'a PairTable,
    pub(super) component: usize,
    /// The index of its first coefficient in the strip.
    pub(super) first: usize,
}

/// Reads a block. If it is needed, writes the coefficients to `out`, which must contain zeros.
#[inline(always)]
pub(super) fn read_block<const KEEP: bool>(
    bits: &mut Bits<'_>,
    place: &Place<'_>,
    predicted: &mut i32,
    out: &mut [i16; 256],
) -> Option<()> {
    let whole = Band { first: 1, last: 63, low: 0 };
    let mut block = bits.block()?;
    read_first(&mut block, place.dc, predicted)?;
    if KEEP {
        out[0] = *predicted as i16;
    }
    read_codes::<KEEP>(&mut block, place.ac, whole, out, &mut 0)?;
    bits.continue_behind(block);
    Some(())
}

/// Reads a DC term.
#[inline(always)]
fn read_first(block: &mut BlockBits<'_>, dc: &Table, predicted: &mut i32) -> Option<()> {
    // A step uses at most 30 bits, so there are always enough for the next look-up, and it need not wait for the refill.
    let found = dc.look_up(block.buffer);
    block.refill()?;
    let step = dc.or_long(found, block.buffer)?;
    *predicted = predicted.checked_add(number(step, block.buffer))?;
    block.skip(step.total);
    Some(())
}

/// Which coefficients a scan has, in file order, and the lowest bit of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Band {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) low: u32,
}

/// Reads the codes of a band. If it is needed, writes the coefficients to `out`, which must contain zeros there, and sets their
/// bits in `nonzero`. Returns for how many blocks after this one the band has ended.
#[inline(always)]
fn read_codes<const KEEP: bool>(
    block: &mut BlockBits<'_>,
    ac: &PairTable,
    band: Band,
    out: &mut [i16; 256],
    nonzero: &mut u64,
) -> Option<u32> {
    let mut put = |k: usize, number: i16| {
        if KEEP {
            // Zero if all bits of the number lie beyond 16.
            let coefficient = number << band.low;
            out[usize::from(IN_GROUP[k & 63])] = coefficient;
            *nonzero |= u64::from(coefficient != 0) << (k & 63);
        }
    };
    let last = band.last;
    let mut k = band.first - 1;
    // Borrowed once, so its address stays in a register.
    let pairs = ac.pairs();
    loop {
        let pair = &pairs[(block.buffer >> (64 - LOOK)) as usize];
        block.refill()?;
        let first = k + usize::from(pair.step.advance);
        let next = k + usize::from(pair.both);
        if next < last {
            // If there is no second step, both coefficients are written to the same place.
            put(next, pair.second);
            put(first, number(pair.step, block.buffer) as i16);
            block.skip(pair.step.total);
            k = next;
        } else if next >= END as usize && first < last {
            // If there is no first step, this writes a zero to the next place, which is zero already: no branch to predict.
            put(first, number(pair.step, block.buffer) as i16);
            let ended = if pair.only_end { blocks_ended(pair.step, block.buffer) } else { 0 };
            block.skip(pair.step.total);
            return Some(ended);
        } else {
            // A long code, the last coefficient, or a run beyond it.
            let step = ac.single.look_up(block.buffer);
            let step = ac.single.or_long(step, block.buffer)?;
            let (start, number) = (block.buffer, number(step, block.buffer));
            block.skip(step.total);
            k += usize::from(step.advance);
            if k >= END as usize {
                return Some(blocks_ended(step, start));
            }
            if k > last {
                return None;
            }
            put(k, number as i16);
            if k == last {
                return Some(0);
            }
        }
    }
}

/// Reads the DC term of a block in a progressive file.
#[inline(always)]
pub(super) fn read_dc(
    bits: &mut Bits<'_>,
    dc: &Table,
    predicted: &mut i32,
    band: Band,
    out: &mut [i16; 256],
) -> Option<()> {
    let mut block = bits.block()?;
    read_first(&mut block, dc, predicted)?;
    out[0] = (*predicted << band.low) as i16;
    bits.continue_behind(block);
    Some(())
}

/// Reads one more bit of the DC term of a block in a progressive file.
#[inline(always)]
pub(super) fn refine_dc(bits: &mut Bits<'_>, band: Band, out: &mut [i16; 256]) -> Option<()> {
    let mut block = bits.block()?;
    block.refill()?;
    out[0] |= ((block.buffer >> 63) as i16) << band.low;
    block.skip(1);
    bits.continue_behind(block);
    Some(())
}

/// Reads a band of a block in a progressive file. Returns for how many blocks after this one the band has ended.
#[inline(always)]
pub(super) fn read_band(
    bits: &mut Bits<'_>,
    ac: &PairTable,
    band: Band,
    out: &mut [i16; 256],
    nonzero: &mut u64,
) -> Option<u32> {
    let mut block = bits.block()?;
    let ended = read_codes::<true>(&mut block, ac, band, out, nonzero)?;
    bits.continue_behind(block);
    Some(ended)
}

/// Reads one more bit of each coefficient of a band that is not zero, and the coefficients that become nonzero with this bit.
/// `ended` is the number of blocks, from this one on, in which no further coefficient becomes nonzero. Returns it for the next
/// block.
#[inline(always)]
pub(super) fn refine_band(
    bits: &mut Bits<'_>,
    ac: &PairTable,
    band: Band,
    out: &mut [i16; 256],
    nonzero: &mut u64,
    mut ended: u32,
) -> Option<u32> {
    let mut block = bits.block()?;
    // The coefficients of the band that are still to come.
    let mut rest = u64::MAX << band.first & u64::MAX >> (63 - band.last);
    while ended == 0 && rest != 0 {
        block.refill()?;
        let step = ac.single.look_up(block.buffer);
        let step = ac.single.or_long(step, block.buffer)?;
        let (start, number) = (block.buffer, number(step, block.buffer));
        block.skip(step.total);
        let advance = step.advance;
        if advance >= END {
            ended = blocks_ended(step, start) + 1;
            break;
        }
        if !(-1..=1).contains(&number) {
            return None;
        }
        // The code counts the coefficients that are zero. Bits of the others follow.
        let mut zeros = rest & !*nonzero;
        for _ in 1..advance {
            zeros &= zeros.wrapping_sub(1);
        }
        if zeros == 0 {
            return None;
        }
        let k = zeros.trailing_zeros();
        let behind = u64::MAX << k << 1;
        refine(&mut block, rest & *nonzero & !behind, band.low, out)?;
        out[usize::from(IN_GROUP[k as usize])] = (number as i16) << band.low;
        *nonzero |= u64::from(number != 0) << k;
        rest &= behind;
    }
    if ended > 0 {
        refine(&mut block, rest & *nonzero, band.low, out)?;
        ended -= 1;
    }
    bits.continue_behind(block);
    Some(ended)
}

/// Reads one more bit of each of these coefficients.
#[inline(always)]
fn refine(block: &mut BlockBits<'_>, mut which: u64, low: u32, out: &mut [i16; 256]) -> Option<()> {
    while which != 0 {
        block.refill()?;
        // So few bits that enough remain for a look-up.
        for _ in 0..which.count_ones().min(40) {
            let k = which.trailing_zeros() as usize;
            which &= which - 1;
            let coefficient = &mut out[usize::from(IN_GROUP[k & 63])];
            let bit = (block.buffer >> 63) as i16;
            // Away from zero.
            let away = (*coefficient >> 15 | 1) * (bit << low);
            *coefficient = coefficient.wrapping_add(away);
            block.skip(1);
        }
    }
    Some(())
}
