//! Reads the coefficients of a block from entropy-coded data.

use std::slice::Iter;

use super::huffman::{BEYOND, END, PairTable, Table};
use super::tables::NATURAL;

/// Reads data without byte stuffing, high bits first. The bytes are in reverse order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    /// The bytes that are not loaded yet.
    rest: &'a [u8],
    length: usize,
    /// The next bits, from the highest on. Those beyond `count` are zeros, or the start of the next byte.
    buffer: u64,
    /// Between steps at least the bits of a look-up, at most 63.
    count: u32,
}

/// Zeros that must follow the data: those loaded in advance, and a whole load after them.
pub(super) const PADDING: usize = 16;

impl<'a> Bits<'a> {
    /// Reads `bytes`, except the [`PADDING`] at the start of the slice, which is the end of the data.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let buffer = u64::from_le_bytes(*bytes.last_chunk::<8>()?);
        Some(Self { rest: &bytes[..bytes.len() - 7], length: bytes.len(), buffer, count: 56 })
    }

    /// Whether exactly all bytes were used.
    pub(super) fn at_end(&self) -> bool {
        let counting = (self.length - PADDING) as isize * 8;
        let used = (self.length - self.rest.len()) as isize * 8 - self.count as isize;
        (counting - 7..=counting).contains(&used)
    }

    /// Loads bits until there are at least 56.
    #[inline(always)]
    fn refill(&mut self) -> Option<()> {
        let count = self.count & 63;
        self.buffer |= u64::from_le_bytes(*self.rest.last_chunk::<8>()?) >> count;
        self.rest = &self.rest[..self.rest.len() - ((63 - count) >> 3) as usize];
        self.count = count | 56;
        Some(())
    }

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

#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) dc: &'a Table,
    pub(super) ac: &'a PairTable,
    pub(super) component: usize,
    /// The index of its first coefficient in the strip.
    pub(super) first: usize,
}

pub(super) struct Blocks<'a, 'b> {
    pub(super) bits: &'b mut Bits<'a>,
    pub(super) places: Iter<'b, Place<'b>>,
    /// The last DC term per component.
    pub(super) predicted: &'b mut [i32; 3],
    pub(super) strip: &'b mut [i16],
}

impl Blocks<'_, '_> {
    #[inline(always)]
    pub(super) fn read<const KEEP: bool>(&mut self) -> Option<()> {
        let whole = Band { first: 1, last: 63, low: 0 };
        // The bits stay in registers between blocks: memory would take longer than a code.
        let mut bits = *self.bits;
        for place in self.places.by_ref() {
            let out = self.strip.get_mut(place.first..)?.first_chunk_mut()?;
            let predicted = self.predicted.get_mut(place.component)?;
            read_first(&mut bits, place.dc, predicted)?;
            if KEEP {
                out[0] = *predicted as i16;
            }
            read_codes::<KEEP>(&mut bits, place.ac, whole, out, &mut 0)?;
        }
        *self.bits = bits;
        Some(())
    }
}

#[inline(always)]
fn read_first(bits: &mut Bits<'_>, dc: &Table, predicted: &mut i32) -> Option<()> {
    // A step uses at most 30 bits, so the next look-up need not wait for the refill.
    let found = dc.look_up(bits.buffer);
    bits.refill()?;
    let step = if found.total == 0 { dc.long_step(bits.buffer)? } else { found };
    *predicted = predicted.checked_add(step.number(bits.buffer).into())?;
    bits.skip(step.total);
    Some(())
}

/// Which coefficients a scan has, in file order, and the lowest bit of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Band {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) low: u32,
}

/// Reads the codes of a band. If needed, writes the coefficients to `out`, which must contain zeros there, and sets their bits in
/// `nonzero`. Returns for how many blocks after this one the band has ended.
#[inline(always)]
fn read_codes<const KEEP: bool>(
    bits: &mut Bits<'_>,
    ac: &PairTable,
    band: Band,
    out: &mut [i16; 256],
    nonzero: &mut u64,
) -> Option<u32> {
    let mut put = |k: usize, number: i16| {
        if KEEP {
            // Zero if all bits lie beyond 16.
            let coefficient = number << band.low;
            out[usize::from(IN_GROUP[k & 63])] = coefficient;
            *nonzero |= u64::from(coefficient != 0) << (k & 63);
        }
    };
    let last = band.last;
    let mut k = band.first - 1;
    loop {
        let pair = ac.look_up(bits.buffer);
        bits.refill()?;
        // Checked first: one rarely taken branch costs less than two unpredictable ones.
        let step = if pair.both == BEYOND {
            ac.single.long_step(bits.buffer)?
        } else {
            let first = k + usize::from(pair.advance);
            let next = k + usize::from(pair.both);
            if next < last {
                // Without a second step, both go to the same place.
                put(next, pair.second);
                put(first, pair.number(bits.buffer));
                bits.skip(pair.total);
                k = next;
                continue;
            }
            if next >= END as usize && first < last {
                // Without a first step, this writes a zero to the next place, which is zero already: no branch to predict.
                let number = pair.number(bits.buffer);
                let (coefficient, ended) = if pair.both == END { (0, number) } else { (number, 0) };
                put(first, coefficient);
                bits.skip(pair.total);
                return Some(ended as u32);
            }
            // The last coefficient, or a run beyond it.
            ac.single.look_up(bits.buffer)
        };
        let number = step.number(bits.buffer);
        bits.skip(step.total);
        k += usize::from(step.advance);
        if k >= END as usize {
            return Some(number as u32);
        }
        if k > last {
            return None;
        }
        put(k, number);
        if k == last {
            return Some(0);
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
    read_first(bits, dc, predicted)?;
    out[0] = (*predicted << band.low) as i16;
    Some(())
}

/// Reads one more bit of the DC term of a block in a progressive file.
#[inline(always)]
pub(super) fn refine_dc(bits: &mut Bits<'_>, band: Band, out: &mut [i16; 256]) -> Option<()> {
    bits.refill()?;
    out[0] |= ((bits.buffer >> 63) as i16) << band.low;
    bits.skip(1);
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
    // A copy, which stays in registers.
    let mut own = *bits;
    let ended = read_codes::<true>(&mut own, ac, band, out, nonzero)?;
    *bits = own;
    Some(ended)
}

/// Reads one more bit of each nonzero coefficient of a band, and the coefficients that become nonzero with this bit. `ended` is the
/// number of blocks, from this one on, in which none does; returns it for the next block.
#[inline(always)]
pub(super) fn refine_band(
    bits: &mut Bits<'_>,
    ac: &PairTable,
    band: Band,
    out: &mut [i16; 256],
    nonzero: &mut u64,
    mut ended: u32,
) -> Option<u32> {
    // The coefficients that are still to come.
    let mut rest = u64::MAX << band.first & u64::MAX >> (63 - band.last);
    while ended == 0 && rest != 0 {
        bits.refill()?;
        let step = ac.single.step(bits.buffer)?;
        let number = step.number(bits.buffer);
        bits.skip(step.total);
        let advance = step.advance;
        if advance >= END {
            ended = number as u32 + 1;
            break;
        }
        if !(-1..=1).contains(&number) {
            return None;
        }
        // The code counts zero coefficients. Bits of the others follow.
        let mut zeros = rest & !*nonzero;
        for _ in 1..advance {
            zeros &= zeros.wrapping_sub(1);
        }
        if zeros == 0 {
            return None;
        }
        let k = zeros.trailing_zeros();
        let behind = u64::MAX << k << 1;
        refine(bits, rest & *nonzero & !behind, band.low, out)?;
        out[usize::from(IN_GROUP[k as usize])] = number << band.low;
        *nonzero |= u64::from(number != 0) << k;
        rest &= behind;
    }
    if ended > 0 {
        refine(bits, rest & *nonzero, band.low, out)?;
        ended -= 1;
    }
    Some(ended)
}

#[inline(always)]
fn refine(bits: &mut Bits<'_>, mut which: u64, low: u32, out: &mut [i16; 256]) -> Option<()> {
    while which != 0 {
        bits.refill()?;
        // Enough bits remain for a look-up.
        for _ in 0..which.count_ones().min(40) {
            let k = which.trailing_zeros() as usize;
            which &= which - 1;
            let coefficient = &mut out[usize::from(IN_GROUP[k & 63])];
            let bit = (bits.buffer >> 63) as i16;
            // Away from zero.
            let away = (*coefficient >> 15 | 1) * (bit << low);
            *coefficient = coefficient.wrapping_add(away);
            bits.skip(1);
        }
    }
    Some(())
}
