//! The inverse DCT of libjpeg-turbo's vector code, for vectors of any width.
//!
//! Each 128-bit lane contains a row of one block. All sums wrap and saturate as in libjpeg-turbo, so the samples are equal even
//! for coefficients that no encoder writes, with one exception: libjpeg-turbo's shortcut for blocks without AC terms differs
//! beyond [`USUAL`], and is not used here.

/// If the coefficients of the first row are smaller in magnitude, the shortcut gives the same samples.
pub(super) const USUAL: i16 = 8192;

// Cosine terms with 13 fractional bits.
pub(super) const F0_298: i32 = 2446;
pub(super) const F0_390: i32 = 3196;
pub(super) const F0_541: i32 = 4433;
pub(super) const F0_765: i32 = 6270;
pub(super) const F0_899: i32 = 7373;
pub(super) const F1_175: i32 = 9633;
pub(super) const F1_501: i32 = 12299;
pub(super) const F1_847: i32 = 15137;
pub(super) const F1_961: i32 = 16069;
pub(super) const F2_053: i32 = 16819;
pub(super) const F2_562: i32 = 20995;
pub(super) const F3_072: i32 = 25172;

/// The number to add before `descale32`, which then rounds. libjpeg-turbo's code for Arm rounds in the shift. If a first pass
/// overflows, it keeps the low bits, while the code for x86-64 saturates. So do we: absurd files get the same pixels, too.
pub(super) const fn rounding(shift: i32) -> i32 {
    if cfg!(target_arch = "aarch64") { 0 } else { 1 << (shift - 1) }
}

/// The two factors of a sum of two products.
pub(crate) const fn pair(first: i32, second: i32) -> i32 {
    second << 16 | first & 0xFFFF
}

/// Defines the two passes of the transform, for all blocks and for those with coefficients in one corner.
macro_rules! idct {
    ($vector:ty, $(#[$instructions:meta])*) => {
        /// One pass of the transform. Vector k holds input k of all columns, and the same for the output, descaled by `shift` bits.
        #[inline]
        $(#[$instructions])*
        fn one_pass(rows: [$vector; 8], shift: i32) -> [$vector; 8] {
            use $crate::kernels::idct::*;
            let [x0, x1, x2, x3, x4, x5, x6, x7] = rows;
            let (sum, difference) = (add16(x0, x4), sub16(x0, x4));
            let (z3, z4) = (add16(x3, x7), add16(x1, x5));
            // Every output has one of the first two terms, so the rounding is part of them: 16 times the second factor.
            let (sixteen, scale) = (set16(16), set32(pair(1 << 13, rounding(shift) >> 4)));
            macro_rules! half {
                ($join:ident) => {{
                    let even = $join(x2, x6);
                    let t3 = madd(even, set32(pair(F0_541 + F0_765, F0_541)));
                    let t2 = madd(even, set32(pair(F0_541, F0_541 - F1_847)));
                    let t0 = madd($join(sum, sixteen), scale);
                    let t1 = madd($join(difference, sixteen), scale);
                    let (t10, t13) = (add32(t0, t3), sub32(t0, t3));
                    let (t11, t12) = (add32(t1, t2), sub32(t1, t2));
                    let odd = $join(z3, z4);
                    let z3 = madd(odd, set32(pair(F1_175 - F1_961, F1_175)));
                    let z4 = madd(odd, set32(pair(F1_175, F1_175 - F0_390)));
                    let outer = $join(x7, x1);
                    let t0 = add32(madd(outer, set32(pair(F0_298 - F0_899, -F0_899))), z3);
                    let t3 = add32(madd(outer, set32(pair(-F0_899, F1_501 - F0_899))), z4);
                    let inner = $join(x5, x3);
                    let t1 = add32(madd(inner, set32(pair(F2_053 - F2_562, -F2_562))), z4);
                    let t2 = add32(madd(inner, set32(pair(-F2_562, F3_072 - F2_562))), z3);
                    descaled([t10, t11, t12, t13], [t3, t2, t1, t0], shift)
                }};
            }
            packed(half!(low16), half!(high16))
        }

        /// Half of a pass whose last four inputs are zeros: from the first and third in turns, and the fourth and second.
        #[inline]
        $(#[$instructions])*
        fn half_of_four(even: $vector, odd: $vector, shift: i32) -> [$vector; 8] {
            use $crate::kernels::idct::*;
            const ONE: i32 = 1 << 13;
            let round = set32(rounding(shift));
            let with = |first, second| add32(madd(even, set32(pair(first, second))), round);
            let even = [
                with(ONE, F0_541 + F0_765),
                with(ONE, F0_541),
                with(ONE, -F0_541),
                with(ONE, -F0_541 - F0_765),
            ];
            // As in `one_pass`, with the factors of each input added up.
            let odd = [
                madd(odd, set32(pair(F1_175, F1_175 - F0_390 + F1_501 - F0_899))),
                madd(odd, set32(pair(F1_175 - F1_961 + F3_072 - F2_562, F1_175))),
                madd(odd, set32(pair(F1_175 - F2_562, F1_175 - F0_390))),
                madd(odd, set32(pair(F1_175 - F1_961, F1_175 - F0_899))),
            ];
            descaled(even, odd, shift)
        }

        #[inline]
        $(#[$instructions])*
        fn descaled(even: [$vector; 4], odd: [$vector; 4], shift: i32) -> [$vector; 8] {
            [
                descale32(add32(even[0], odd[0]), shift),
                descale32(add32(even[1], odd[1]), shift),
                descale32(add32(even[2], odd[2]), shift),
                descale32(add32(even[3], odd[3]), shift),
                descale32(sub32(even[3], odd[3]), shift),
                descale32(sub32(even[2], odd[2]), shift),
                descale32(sub32(even[1], odd[1]), shift),
                descale32(sub32(even[0], odd[0]), shift),
            ]
        }

        #[inline]
        $(#[$instructions])*
        fn packed(low: [$vector; 8], high: [$vector; 8]) -> [$vector; 8] {
            [
                narrow32(low[0], high[0]),
                narrow32(low[1], high[1]),
                narrow32(low[2], high[2]),
                narrow32(low[3], high[3]),
                narrow32(low[4], high[4]),
                narrow32(low[5], high[5]),
                narrow32(low[6], high[6]),
                narrow32(low[7], high[7]),
            ]
        }

        /// Both passes for blocks whose coefficients are in the first four rows and columns. Vector k of the result holds
        /// column k, as after `one_pass`, `transpose` and `one_pass`.
        #[inline]
        $(#[$instructions])*
        fn passes_of_corner([x0, x1, x2, x3]: [$vector; 4]) -> [$vector; 8] {
            let rows = half_of_four(low16(x0, x2), low16(x3, x1), 11);
            // Rows k and k + 4 of four columns, then the transposed.
            let (a0, a1) = (narrow32(rows[0], rows[4]), narrow32(rows[1], rows[5]));
            let (a2, a3) = (narrow32(rows[2], rows[6]), narrow32(rows[3], rows[7]));
            let (b0, b1) = (low16(a0, a1), high16(a0, a1));
            let (b2, b3) = (low16(a2, a3), high16(a2, a3));
            let (c0, c1) = (low32(b0, b2), high32(b0, b2));
            let (c2, c3) = (low32(b1, b3), high32(b1, b3));
            let (x0, x1) = (low64(c0, c2), high64(c0, c2));
            let (x2, x3) = (low64(c1, c3), high64(c1, c3));
            packed(
                half_of_four(low16(x0, x2), low16(x3, x1), 18),
                half_of_four(high16(x0, x2), high16(x3, x1), 18),
            )
        }

        /// Both passes for blocks with no coefficient but the first, as rows of bytes, which are all equal.
        #[inline]
        $(#[$instructions])*
        fn passes_of_first(row: $vector) -> $vector {
            let pass = |row: $vector, shift: i32| {
                let whole = shift32(low16(zero(), row), 3);
                let sum = descale32(add32(whole, set32($crate::kernels::idct::rounding(shift))), shift);
                narrow32(sum, sum)
            };
            let two = |column| low16(column, column);
            let four = |column| low32(column, column);
            let column = four(two(pass(row, 11)));
            let samples = pass(column, 18);
            packs16(samples, samples)
        }

        #[inline]
        $(#[$instructions])*
        fn transpose(rows: [$vector; 8]) -> [$vector; 8] {
            let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
            let (a0, a1, a2, a3) = (low16(r0, r1), high16(r0, r1), low16(r2, r3), high16(r2, r3));
            let (a4, a5, a6, a7) = (low16(r4, r5), high16(r4, r5), low16(r6, r7), high16(r6, r7));
            let (b0, b1, b2, b3) = (low32(a0, a2), high32(a0, a2), low32(a1, a3), high32(a1, a3));
            let (b4, b5, b6, b7) = (low32(a4, a6), high32(a4, a6), low32(a5, a7), high32(a5, a7));
            [
                low64(b0, b4),
                high64(b0, b4),
                low64(b1, b5),
                high64(b1, b5),
                low64(b2, b6),
                high64(b2, b6),
                low64(b3, b7),
                high64(b3, b7),
            ]
        }

        /// Rows of samples from columns, two in each lane of a vector. Samples become bytes first, so half as much is moved.
        #[inline]
        $(#[$instructions])*
        fn rows_of_bytes(columns: [$vector; 8]) -> [$vector; 4] {
            let [c0, c1, c2, c3, c4, c5, c6, c7] = columns;
            let (a0, a1) = (packs16(c0, c4), packs16(c1, c5));
            let (a2, a3) = (packs16(c2, c6), packs16(c3, c7));
            let (b0, b1) = (low8(a0, a1), high8(a0, a1));
            let (b2, b3) = (low8(a2, a3), high8(a2, a3));
            let (d0, d1) = (low16(b0, b2), high16(b0, b2));
            let (d2, d3) = (low16(b1, b3), high16(b1, b3));
            [low32(d0, d2), high32(d0, d2), low32(d1, d3), high32(d1, d3)]
        }
    };
}
pub(super) use idct;
