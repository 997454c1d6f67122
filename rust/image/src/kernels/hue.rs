//! Hue shift in whole numbers.
//!
//! PIL computes hue and saturation with real numbers and cuts off the fraction. So does this kernel, with fewer operations:
//! - The saturation is the whole part of 255 * range / high. PIL rounds range / high before, but up wherever the product
//!   could be a whole number.
//! - The hue is the whole part of 42.5 * sixths, where `sixths` is the hue in sixths of a turn. If the product is a whole
//!   number, PIL's rounding can give one less. Whether it does depends only on the result, and `LOWER` has the results for
//!   which it does.
//! - Back to RGB, a level is a quotient of whole numbers that is never halfway between two whole numbers, and PIL's error is
//!   too small to round it the other way.
//!
//! Tests compare all colours under all shifts with PIL's own formulas.

/// Defines `shift_hue` for the operations in scope.
macro_rules! hue {
    ($features:literal) => {
        use super::hue_tables::{
            BITS, FIRST_SIXTH, HAS_MIDDLE, HAS_VALUE, LAST_LOWER, LOWER, NEXT_SIXTH, TIMES_85,
        };

        /// Modulo 256.
        #[target_feature(enable = $features)]
        pub(in super::super) fn shift_hue(pixels: &mut [u8], shift: u8) {
            let (blocks, rest) = pixels.as_chunks_mut::<{ BYTES * 3 }>();
            for block in blocks {
                let channels = load_pixels(block);
                let [red, green, blue] = channels;
                let high = max8(max8(red, green), blue);
                let [hue, saturation] = hue_saturation(channels, high);
                store_pixels(block, colours(add8(hue, set8(shift)), saturation, high));
            }
            portable::shift_hue(rest, shift);
        }

        /// Hue and saturation of PIL's HSV. Grey pixels have a saturation of 0 and any hue.
        #[inline]
        #[target_feature(enable = $features)]
        fn hue_saturation([red, green, blue]: [V; 3], high: V) -> [V; 2] {
            let low = min8(min8(red, green), blue);
            let middle = max8(min8(red, green), min8(max8(red, green), blue));
            let range = sub8(high, low);
            // The hue in sixths of a turn is a whole number plus a share of the range. -1 is true.
            let red_low = equal8(red, low);
            let red_sixth = select(equal8(max8(green, blue), green), set8(0), set8(5));
            let green_sixth = sub8(set8(1), red_low);
            let blue_sixth = add8(set8(4), red_low);
            let others = select(equal8(green, high), green_sixth, blue_sixth);
            let sixth = select(equal8(red, high), red_sixth, others);
            let is_odd = equal8(and(sixth, set8(1)), set8(1));
            let share = select(is_odd, sub8(high, middle), sub8(middle, low));
            let half = |sixth, share, range, high| {
                let sixths = add16(mul16(sixth, range), share);
                // 42.5 * 256: eight bits of the fraction tell whether the hue is a whole number, rounded to nearest.
                let hue = quotients(sixths, 10880.0, range, true);
                [hue, quotients(range, 255.0, high, false)]
            };
            let [low_hue, low_saturation] =
                half(low16(sixth), low16(share), low16(range), low16(high));
            let [high_hue, high_saturation] =
                half(high16(sixth), high16(share), high16(range), high16(high));
            let fraction = narrow16(and(low_hue, set16(255)), and(high_hue, set16(255)));
            let hue = narrow16(shift_right16::<8>(low_hue), shift_right16::<8>(high_hue));
            [rounded_as_pil(hue, fraction), narrow16(low_saturation, high_saturation)]
        }

        /// `dividend * factor / divisor` of 16-bit numbers, rounded to nearest or down. 0 / 0 is 0.
        #[inline]
        #[target_feature(enable = $features)]
        fn quotients(dividend: V, factor: f32, divisor: V, nearest: bool) -> V {
            let half = |dividend, divisor| {
                let dividend = mul_single(single(dividend), set_single(factor));
                let quotient = div_single(dividend, single(divisor));
                if nearest { rounded(quotient) } else { whole(quotient) }
            };
            narrow32(half(low32(dividend), low32(divisor)), half(high32(dividend), high32(divisor)))
        }

        /// The hue after PIL's roundings, given its whole part and whether there is a fraction.
        #[inline]
        #[target_feature(enable = $features)]
        fn rounded_as_pil(hue: V, fraction: V) -> V {
            let bits = look_up(repeat(&LOWER), sub8(shift_right8::<3>(hue), set8(11)));
            let bit = look_up(repeat(&BITS), and(hue, set8(7)));
            let is_listed = equal8(and(bits, bit), bit);
            let is_small = equal8(min8(hue, set8(LAST_LOWER)), hue);
            let is_whole = equal8(fraction, set8(0));
            let is_lower = and(is_whole, or(is_listed, is_small));
            sub8_to_zero(hue, and(is_lower, set8(1)))
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn colours(hue: V, saturation: V, value: V) -> [V; 3] {
            let sixteenth = shift_right8::<4>(hue);
            let next = look_up(repeat(&NEXT_SIXTH), sixteenth);
            let first = look_up(repeat(&FIRST_SIXTH), sixteenth);
            let sixth = sub8(first, equal8(max8(hue, next), hue));
            // The position of the hue within its sixth, from 0 to 84.
            let place = sub8(add8(hue, hue), look_up(repeat(&TIMES_85), sixth));
            let is_odd = equal8(and(sixth, set8(1)), set8(1));
            let place = select(is_odd, place, sub8(set8(85), place));
            let pale = sub8(set8(255), saturation);
            let [low_value, high_value] = [low16(value), high16(value)];
            let middle = narrow16(
                middle_level(low_value, low16(saturation), low16(place)),
                middle_level(high_value, high16(saturation), high16(place)),
            );
            let darkest = narrow16(
                share_of_255(low_value, low16(pale)),
                share_of_255(high_value, high16(pale)),
            );
            let channel = |has_value: &[u8; 16], has_middle: &[u8; 16]| {
                let others = select(look_up(repeat(has_middle), sixth), middle, darkest);
                select(look_up(repeat(has_value), sixth), value, others)
            };
            [
                channel(&HAS_VALUE[0], &HAS_MIDDLE[0]),
                channel(&HAS_VALUE[1], &HAS_MIDDLE[1]),
                channel(&HAS_VALUE[2], &HAS_MIDDLE[2]),
            ]
        }

        /// `value * share / 255`, rounded.
        #[inline]
        #[target_feature(enable = $features)]
        fn share_of_255(value: V, share: V) -> V {
            let product = add16(mul16(value, share), set16(128));
            shift_right16::<8>(add16(product, shift_right16::<8>(product)))
        }

        /// `value * (1 - saturation / 255 * place / 85)`, rounded.
        #[inline]
        #[target_feature(enable = $features)]
        fn middle_level(value: V, saturation: V, place: V) -> V {
            const ALL: i16 = 255 * 85;
            let share = sub16(set16(ALL), mul16(saturation, place));
            // The share in 32768ths, at most 2 too small: 1.51178 is 32768 / ALL.
            let scaled = add16(share, mul_fraction16(share, set16(16770)));
            let level = mul_fraction16(value, sub16(scaled, set16(1)));
            // The level is right or one too low. If it is too low, the rest is too large; its lower half shows that.
            let rest = sub16(mul16(value, share), mul16(level, set16(ALL)));
            sub16(level, greater16(rest, set16(ALL / 2)))
        }
    };
}
pub(super) use hue;
