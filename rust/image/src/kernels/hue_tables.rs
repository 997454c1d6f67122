//! Look-up tables of 16 bytes for the hue kernels.

/// Bit i of byte b: PIL's rounding makes the hue 88 + 8 b + i one less, if the product is a whole number.
pub(super) const LOWER: [u8; 16] = lower();

const fn lower() -> [u8; 16] {
    const HUES: [usize; 33] = [
        88, 92, 96, 100, 104, 129, 131, 133, 135, 137, 139, 141, 143, 145, 147, 149, 153, 157, 161,
        165, 169, 173, 176, 177, 181, 184, 185, 189, 193, 197, 201, 205, 209,
    ];
    let mut bits = [0; 16];
    let mut at = 0;
    while at < HUES.len() {
        let index = HUES[at] - 88;
        bits[index / 8] |= 1 << (index % 8);
        at += 1;
    }
    bits
}

/// The smaller hues for which the same holds: 1 up to this.
pub(super) const LAST_LOWER: u8 = 31;

pub(super) const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0];

/// For each group of 16 hues, the sixth of the turn of the first one.
pub(super) const FIRST_SIXTH: [u8; 16] = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5];
/// For each group, its first hue that is in the next sixth; if there is none, a larger hue.
pub(super) const NEXT_SIXTH: [u8; 16] =
    [255, 255, 43, 255, 255, 85, 255, 255, 128, 255, 170, 255, 255, 213, 255, 255];
/// Multiples of 85, modulo 256.
pub(super) const TIMES_85: [u8; 16] = [0, 85, 170, 255, 84, 169, 254, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// For each channel and sixth, whether the channel has the value: -1 or 0.
pub(super) const HAS_VALUE: [[u8; 16]; 3] =
    [sixths([1, 0, 0, 0, 0, 1, 1]), sixths([0, 1, 1, 0, 0, 0, 0]), sixths([0, 0, 0, 1, 1, 0, 0])];
pub(super) const HAS_MIDDLE: [[u8; 16]; 3] =
    [sixths([0, 1, 0, 0, 1, 0, 0]), sixths([1, 0, 0, 1, 0, 0, 1]), sixths([0, 0, 1, 0, 0, 1, 0])];

const fn sixths(values: [u8; 7]) -> [u8; 16] {
    let mut table = [0; 16];
    let mut at = 0;
    while at < values.len() {
        table[at] = values[at] * 255;
        at += 1;
    }
    table
}
