//! The kernels, once for vectors of any width: coefficients to samples, and samples to pixels.
//!
//! `kernels!` defines them for each module's vector type and operations. All give the same bytes.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod idct;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::Memory;
use crate::planes::Source;
use crate::simd::{Level, level};

/// Decodes with the kernels of the current level.
pub(super) fn decode(source: Source<'_>, memory: &mut Memory, pixels: &mut [u8]) -> Option<()> {
    match level() {
        Level::Portable => portable::decode(source, memory, pixels),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the instructions of its level.
        // Vectors of 512 bits would not be faster here: fewer of them have only coefficients that make the arithmetic short.
        Level::Avx2 | Level::Avx512 => unsafe { avx2::decode(source, memory, pixels) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: likewise.
        Level::Neon => unsafe { neon::decode(source, memory, pixels) },
    }
}

/// Defines `decode` for vectors of `bytes` bytes, from operations whose names say what they do in each lane of 128 bits. The
/// attributes name the instructions that they need.
macro_rules! kernels {
    ($vector:ty, $bytes:literal, $(#[$instructions:meta])*) => {
        use $crate::bits::Blocks;
        // Arm has its own: see `idct::rounding`.
        #[cfg(not(target_arch = "aarch64"))]
        use self::{packs32 as narrow32, shift32 as descale32};

        $crate::kernels::idct::idct!($vector, $(#[$instructions])*);

        $(#[$instructions])*
        pub(super) fn decode(
            source: $crate::planes::Source<'_>,
            memory: &mut $crate::Memory,
            pixels: &mut [u8],
        ) -> Option<()> {
            let read = |keep, blocks: &mut Blocks<'_, '_>| {
                if keep { read::<true>(blocks) } else { read::<false>(blocks) }
            };
            let samples = |groups: &mut [$crate::scan::Group], steps: &[i16; 64], out: &mut [u8], stride| {
                samples(groups, steps, out, stride)
            };
            let colours = |luma: &[u8], blue: &[u8], red: &[u8], out: &mut [u8]| {
                colours(luma, blue, red, out)
            };
            let grays = |luma: &[u8], out: &mut [u8]| grays(luma, out);
            let $crate::Memory { planes, pixels: buffers } = memory;
            $crate::planes::decode(source, planes, read, samples, |planes, rows| {
                $crate::pixels::make(source, planes, rows, buffers, pixels, colours, grays);
            })
        }

        /// Not inlined, and with a single reference: variables of the caller would take registers.
        #[inline(never)]
        $(#[$instructions])*
        fn read<const KEEP: bool>(blocks: &mut Blocks<'_, '_>) -> Option<()> {
            blocks.read::<KEEP>()
        }

        /// Computes the samples of a row of groups: eight rows of `out`, `stride` bytes apart. Leaves zeros in the groups. Returns
        /// whether all coefficients are in the usual range.
        #[inline]
        $(#[$instructions])*
        fn samples(groups: &mut [$crate::scan::Group], steps: &[i16; 64], out: &mut [u8], stride: usize) -> bool {
            // Coefficients of a row in a vector: of one or two blocks.
            const LANES: usize = $bytes / 2;
            // Loops where `array::from_fn` would do: a closure of vectors that is not inlined costs more than the arithmetic.
            let mut factors = [zero(); 8];
            for (factor, row) in factors.iter_mut().zip(steps.as_chunks::<8>().0) {
                *factor = repeat(row);
            }
            let behind_first = repeat(&[0, -1, -1, -1, -1, -1, -1, -1]);
            let mut beyond = zero();
            for (number, group) in groups.iter_mut().enumerate() {
                for part in 0..32 / LANES {
                    let mut rows = [zero(); 8];
                    for (row, values) in rows.iter_mut().enumerate() {
                        let own = &mut group[row * 32 + part * LANES..][..LANES];
                        *values = mullo(load16(own), factors[row]);
                        // For the next strip, while they are at hand.
                        own.fill(0);
                    }
                    // Then the upper two bits of a usual coefficient are zeros.
                    beyond = or(beyond, add16(rows[0], set16($crate::kernels::idct::USUAL)));
                    let lower = or(or(rows[4], rows[5]), or(rows[6], rows[7]));
                    let upper = or(or(rows[0], rows[1]), or(rows[2], rows[3]));
                    let [a, b, c, d] = if any(or(lower, high64(upper, zero()))) {
                        rows_of_bytes(one_pass(transpose(one_pass(rows, 11)), 18))
                    } else if any(or(or(rows[1], and(rows[0], behind_first)), or(rows[2], rows[3]))) {
                        rows_of_bytes(passes_of_corner([rows[0], rows[1], rows[2], rows[3]]))
                    } else {
                        [passes_of_first(rows[0]); 4]
                    };
                    let center = set8(-128);
                    let pairs = [xor(a, center), xor(b, center), xor(c, center), xor(d, center)];
                    store_rows(pairs, &mut out[number * 32 + part * LANES..], stride);
                }
            }
            !any(and(beyond, set16(-2 * $crate::kernels::idct::USUAL)))
        }

        /// Converts luma and chroma to RGB, a vector at a time.
        #[inline]
        $(#[$instructions])*
        fn colours(luma: &[u8], blue: &[u8], red: &[u8], out: &mut [u8]) {
            let out = out.as_chunks_mut::<{ 3 * $bytes }>().0;
            // Checked once, so the loop need not.
            let count = out.len() * $bytes;
            let luma = luma[..count].as_chunks::<$bytes>().0;
            let blue = blue[..count].as_chunks::<$bytes>().0;
            let red = red[..count].as_chunks::<$bytes>().0;
            for (((out, y), cb), cr) in out.iter_mut().zip(luma).zip(blue).zip(red) {
                let (y, cb, cr) = (load8(y), load8(cb), load8(cr));
                let low = rgb(low8(y, zero()), low8(cb, zero()), low8(cr, zero()));
                let high = rgb(high8(y, zero()), high8(cb, zero()), high8(cr, zero()));
                store_pixels(
                    packus16(low[0], high[0]),
                    packus16(low[1], high[1]),
                    packus16(low[2], high[2]),
                    out,
                );
            }
        }

        /// Red, green and blue of half a vector of pixels, not yet clamped to 8 bits.
        #[inline]
        $(#[$instructions])*
        fn rgb(luma: $vector, blue: $vector, red: $vector) -> [$vector; 3] {
            use $crate::pixels::{BLUE, GREEN, RED};
            let (blue, red) = (sub16(blue, set16(128)), sub16(red, set16(128)));
            let r = add16(add16(luma, red), mulhrs(red, set16(RED)));
            let b = add16(add16(luma, add16(blue, blue)), mulhrs(blue, set16(BLUE)));
            let round = set32(1 << 15);
            let low = add32(madd(low16(blue, red), set32(GREEN)), round);
            let high = add32(madd(high16(blue, red), set32(GREEN)), round);
            let green = packs32(shift32(low, 16), shift32(high, 16));
            [r, sub16(add16(luma, green), red), b]
        }

        /// Copies luma to all three channels, a vector at a time.
        #[inline]
        $(#[$instructions])*
        fn grays(luma: &[u8], out: &mut [u8]) {
            for (number, out) in out.as_chunks_mut::<{ 3 * $bytes }>().0.iter_mut().enumerate() {
                let y = load8(&luma[number * $bytes..][..$bytes]);
                store_pixels(y, y, y, out);
            }
        }
    };
}
pub(super) use idct::pair;
use kernels;

/// The end of the last of eight rows of `bytes` bytes, whose starts are `stride` bytes apart.
#[cfg(target_arch = "x86_64")]
fn end_of_rows(stride: usize, bytes: usize) -> usize {
    // No slice is that long, so an overflow fails where the slice is taken.
    stride.saturating_mul(7).saturating_add(bytes)
}

/// For each channel, the pixel of each byte in three vectors of RGB of 16 pixels, modulo the length of a vector: no two bytes of
/// a channel are in the same place.
#[cfg(target_arch = "x86_64")]
const PLACES: [[u8; 16]; 3] = bytes_of_rgb().0;
#[cfg(target_arch = "x86_64")]
const RED_BYTES: [[u8; 16]; 3] = bytes_of_rgb().1[0];
#[cfg(target_arch = "x86_64")]
const GREEN_BYTES: [[u8; 16]; 3] = bytes_of_rgb().1[1];

#[cfg(target_arch = "x86_64")]
const fn bytes_of_rgb() -> ([[u8; 16]; 3], [[[u8; 16]; 3]; 3]) {
    let (mut places, mut channels) = ([[0; 16]; 3], [[[0; 16]; 3]; 3]);
    let mut at = 0;
    while at < 48 {
        places[at % 3][at % 16] = (at / 3) as u8;
        channels[at % 3][at / 16][at % 16] = 0xFF;
        at += 1;
    }
    (places, channels)
}
