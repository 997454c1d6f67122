//! Operations on vectors of 16 bytes with NEON.

use std::arch::aarch64::*;

use super::super::portable;
use super::super::slope::{SLOPE_BITS, Slope};
use super::{colour::colour, hue::hue, operations, resize::resize};

type V = uint8x16_t;
type F = float32x4_t;
type Sum = [int32x4_t; 2];
const BYTES: usize = 16;
const PARTS: usize = 1;

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8], at: usize) -> V {
    let bytes = &bytes[at..at + 16];
    // SAFETY: reads the slice's 16 bytes, unaligned.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(bytes: &mut [u8], at: usize, value: V) {
    let bytes = &mut bytes[at..at + 16];
    // SAFETY: writes the slice's 16 bytes, unaligned.
    unsafe { vst1q_u8(bytes.as_mut_ptr(), value) }
}

#[inline]
#[target_feature(enable = "neon")]
fn repeat(part: &[u8; 16]) -> V {
    load(part, 0)
}

#[inline]
#[target_feature(enable = "neon")]
fn load_parts(rows: [&[u8]; PARTS], at: usize) -> V {
    load(rows[0], at)
}

#[inline]
#[target_feature(enable = "neon")]
fn store_parts(rows: &mut [u8], _stride: usize, at: usize, value: V) {
    store(rows, at, value);
}

#[inline]
#[target_feature(enable = "neon")]
fn load_pixels(pixels: &[u8; BYTES * 3]) -> [V; 3] {
    // SAFETY: reads the array's 48 bytes, unaligned.
    let channels = unsafe { vld3q_u8(pixels.as_ptr()) };
    [channels.0, channels.1, channels.2]
}

#[inline]
#[target_feature(enable = "neon")]
fn store_pixels(pixels: &mut [u8; BYTES * 3], [red, green, blue]: [V; 3]) {
    // SAFETY: writes the array's 48 bytes, unaligned.
    unsafe { vst3q_u8(pixels.as_mut_ptr(), uint8x16x3_t(red, green, blue)) }
}

operations! { "neon";
    fn words(a: V) -> uint16x8_t { vreinterpretq_u16_u8(a) }
    fn signed_words(a: V) -> int16x8_t { vreinterpretq_s16_u8(a) }
    fn of_words(a: uint16x8_t) -> V { vreinterpretq_u8_u16(a) }
    fn of_signed_words(a: int16x8_t) -> V { vreinterpretq_u8_s16(a) }

    fn set8(value: u8) -> V { vdupq_n_u8(value) }
    fn add8(a: V, b: V) -> V { vaddq_u8(a, b) }
    fn sub8(a: V, b: V) -> V { vsubq_u8(a, b) }
    fn sub8_to_zero(a: V, b: V) -> V { vqsubq_u8(a, b) }
    fn max8(a: V, b: V) -> V { vmaxq_u8(a, b) }
    fn min8(a: V, b: V) -> V { vminq_u8(a, b) }
    fn equal8(a: V, b: V) -> V { vceqq_u8(a, b) }
    fn shift_right8<const BITS: i32>(a: V) -> V { vshrq_n_u8::<BITS>(a) }
    fn and(a: V, b: V) -> V { vandq_u8(a, b) }
    fn or(a: V, b: V) -> V { vorrq_u8(a, b) }
    fn select(mask: V, yes: V, no: V) -> V { vbslq_u8(mask, yes, no) }
    fn look_up(table: V, index: V) -> V { vqtbl1q_u8(table, index) }
    fn gather(part: V, places: V) -> V { vqtbl1q_u8(part, places) }

    fn low16(a: V) -> V { of_words(vmovl_u8(vget_low_u8(a))) }
    fn high16(a: V) -> V { of_words(vmovl_high_u8(a)) }
    fn narrow16(low: V, high: V) -> V { vcombine_u8(vqmovun_s16(signed_words(low)), vqmovun_s16(signed_words(high))) }
    fn set16(value: i16) -> V { of_signed_words(vdupq_n_s16(value)) }
    fn add16(a: V, b: V) -> V { of_words(vaddq_u16(words(a), words(b))) }
    fn sub16(a: V, b: V) -> V { of_words(vsubq_u16(words(a), words(b))) }
    fn mul16(a: V, b: V) -> V { of_words(vmulq_u16(words(a), words(b))) }
    fn mul_high16(a: V, b: V) -> V {
        // The instruction doubles the product.
        of_signed_words(vshrq_n_s16::<1>(vqdmulhq_s16(signed_words(a), signed_words(b))))
    }
    fn mul_fraction16(a: V, b: V) -> V { of_signed_words(vqrdmulhq_s16(signed_words(a), signed_words(b))) }
    fn greater16(a: V, b: V) -> V { of_words(vcgtq_s16(signed_words(a), signed_words(b))) }
    fn shift_right16<const BITS: i32>(a: V) -> V { of_words(vshrq_n_u16::<BITS>(words(a))) }
    fn shift_right_signed16<const BITS: i32>(a: V) -> V { of_signed_words(vshrq_n_s16::<BITS>(signed_words(a))) }

    fn low32(a: V) -> V { vreinterpretq_u8_u32(vmovl_u16(vget_low_u16(words(a)))) }
    fn high32(a: V) -> V { vreinterpretq_u8_u32(vmovl_high_u16(words(a))) }
    fn narrow32(low: V, high: V) -> V {
        let (low, high) = (vreinterpretq_s32_u8(low), vreinterpretq_s32_u8(high));
        of_words(vcombine_u16(vqmovun_s32(low), vqmovun_s32(high)))
    }
    fn set_single(value: f32) -> F { vdupq_n_f32(value) }
    fn single(a: V) -> F { vcvtq_f32_s32(vreinterpretq_s32_u8(a)) }
    fn mul_single(a: F, b: F) -> F { vmulq_f32(a, b) }
    fn div_single(a: F, b: F) -> F { vdivq_f32(a, b) }
    fn rounded(a: F) -> V { vreinterpretq_u8_s32(vcvtnq_s32_f32(a)) }
    fn whole(a: F) -> V { vreinterpretq_u8_s32(vcvtq_s32_f32(a)) }

    fn add_bytes(sums: V, bytes: V) -> V {
        let sum = vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(bytes)));
        vreinterpretq_u8_u64(vaddq_u64(vreinterpretq_u64_u8(sums), sum))
    }
    fn sum64(a: V) -> u64 { vaddvq_u64(vreinterpretq_u64_u8(a)) }

    fn low_in_turns(a: V, b: V) -> V { vzip1q_u8(a, b) }
    fn high_in_turns(a: V, b: V) -> V { vzip2q_u8(a, b) }
    fn start_sum(value: i32) -> Sum { [vdupq_n_s32(value / 2), vdupq_n_s32(value / 2)] }
    fn add_fours(sum: Sum, samples: V, even: V, odd: V) -> Sum {
        let sum = add_twos(sum, and(samples, set16(255)), even);
        add_twos(sum, shift_right16::<8>(samples), odd)
    }
    fn add_twos([one, other]: Sum, samples: V, weights: V) -> Sum {
        let (samples, weights) = (signed_words(samples), signed_words(weights));
        [
            vmlal_s16(one, vget_low_s16(samples), vget_low_s16(weights)),
            vmlal_high_s16(other, samples, weights),
        ]
    }
    fn start_upper() -> V { set8(0) }
    fn add_upper_fours(upper: V, samples: V, weights: V) -> V {
        let weights = vreinterpretq_s16_u8(weights);
        let even = vshrq_n_s16::<8>(vshlq_n_s16::<8>(weights));
        let upper = vmlaq_s16(signed_words(upper), signed_words(and(samples, set16(255))), even);
        let odd = vshrq_n_s16::<8>(weights);
        of_signed_words(vmlaq_s16(upper, signed_words(shift_right16::<8>(samples)), odd))
    }
    fn add_upper_twos(upper: V, samples: V, weights: V) -> V { add_upper_fours(upper, samples, weights) }
    fn join_fours(sum: Sum, upper: V) -> Sum {
        add_to_total(sum, vshlq_n_s32::<16>(vpaddlq_s16(signed_words(upper))))
    }
    fn join_twos([low, high]: [Sum; 2], upper: V) -> [Sum; 2] {
        let upper = signed_words(upper);
        let first = vshll_n_s16::<16>(vget_low_s16(upper));
        let second = vshll_high_n_s16::<16>(upper);
        [add_to_total(low, first), add_to_total(high, second)]
    }
    fn add_to_total([one, other]: Sum, numbers: int32x4_t) -> Sum {
        let zero = vdupq_n_s32(0);
        [vaddq_s32(one, vzip1q_s32(numbers, zero)), vaddq_s32(other, vzip2q_s32(numbers, zero))]
    }
    fn total([one, other]: Sum) -> V { vreinterpretq_u8_s32(vpaddq_s32(one, other)) }
    fn shift_right_signed32<const BITS: i32>(a: V) -> V { vreinterpretq_u8_s32(vshrq_n_s32::<BITS>(vreinterpretq_s32_u8(a))) }
    fn narrow_all([a, b, c, d]: [V; 4]) -> V {
        let narrow = |low, high| {
            let (low, high) = (vreinterpretq_s32_u8(low), vreinterpretq_s32_u8(high));
            vqmovun_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high)))
        };
        vcombine_u8(narrow(a, b), narrow(c, d))
    }
}

colour! { "neon" }
hue! { "neon" }
resize! { "neon" }
