//! Brightness of pixels, and saturation.

/// Defines the kernels for the operations in scope.
macro_rules! colour {
    ($features:literal) => {
        /// PIL's `L`.
        #[inline]
        #[target_feature(enable = $features)]
        fn luma([red, green, blue]: [V; 3]) -> V {
            narrow16(
                luma16([low16(red), low16(green), low16(blue)]),
                luma16([high16(red), high16(green), high16(blue)]),
            )
        }

        /// PIL's `L` of 16-bit numbers. The weights are 76, 150 and 29 plus 139, 70 and 47 256ths.
        #[inline]
        #[target_feature(enable = $features)]
        fn luma16([red, green, blue]: [V; 3]) -> V {
            let sum = |of_red, of_green, of_blue| {
                let red_green = add16(mul16(red, set16(of_red)), mul16(green, set16(of_green)));
                add16(red_green, mul16(blue, set16(of_blue)))
            };
            let rest = shift_right16::<8>(sum(139, 70, 47));
            let rounded = add16(sum(76, 150, 29), set16(128));
            shift_right16::<8>(add16(rounded, rest))
        }

        /// The sum of PIL's `L` over all pixels.
        #[target_feature(enable = $features)]
        pub(in super::super) fn luma_sum(pixels: &[u8]) -> u64 {
            let (blocks, rest) = pixels.as_chunks::<{ BYTES * 3 }>();
            let mut sums = set8(0);
            for block in blocks {
                sums = add_bytes(sums, luma(load_pixels(block)));
            }
            sum64(sums) + portable::luma_sum(rest)
        }

        #[target_feature(enable = $features)]
        pub(in super::super) fn gray(pixels: &mut [u8]) {
            let (blocks, rest) = pixels.as_chunks_mut::<{ BYTES * 3 }>();
            for block in blocks {
                store_pixels(block, [luma(load_pixels(block)); 3]);
            }
            portable::gray(rest);
        }

        #[target_feature(enable = $features)]
        pub(in super::super) fn saturate(pixels: &mut [u8], slope: Slope) {
            let (blocks, rest) = pixels.as_chunks_mut::<{ BYTES * 3 }>();
            for block in blocks {
                let [red, green, blue] = load_pixels(block);
                let level = luma([red, green, blue]);
                let (low, high) = (low16(level), high16(level));
                let blend = |channel| {
                    narrow16(
                        blend16(low, low16(channel), slope),
                        blend16(high, high16(channel), slope),
                    )
                };
                store_pixels(block, [blend(red), blend(green), blend(blue)]);
            }
            portable::saturate(rest, slope);
        }

        /// `from + slope * (to - from)`, rounded down.
        #[inline]
        #[target_feature(enable = $features)]
        fn blend16(from: V, to: V, slope: Slope) -> V {
            let difference = sub16(to, from);
            let product = add16(
                mul16(difference, set16(slope.units)),
                mul_high16(difference, set16(slope.rest)),
            );
            add16(from, shift_right_signed16::<SLOPE_BITS>(product))
        }

        #[target_feature(enable = $features)]
        pub(in super::super) fn blend_with_constant(pixels: &mut [u8], constant: u8, slope: Slope) {
            portable::blend_with_constant(pixels, constant, slope);
        }
    };
}
pub(super) use colour;
