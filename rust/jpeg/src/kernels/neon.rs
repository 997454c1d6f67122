//! The operations on vectors of 128 bits, with NEON. Only loads and stores access memory; each checks its bounds.

use std::arch::aarch64::{
    int16x8_t, uint8x16x3_t, vaddq_s16 as add16, vaddq_s32, vandq_s16 as and, vcombine_s16,
    vdupq_n_s8, vdupq_n_s16 as set16, vdupq_n_s32, veorq_s16 as xor, vget_high_s16, vget_low_s16,
    vld1q_s16, vld1q_u8, vmaxvq_u16, vmull_s16, vmulq_s16 as mullo, vorrq_s16 as or, vpaddq_s32,
    vqmovn_high_s16, vqmovn_s16, vqmovn_s32, vqmovun_high_s16, vqmovun_s16,
    vqrdmulhq_s16 as mulhrs, vreinterpretq_s8_s16, vreinterpretq_s16_s8, vreinterpretq_s16_s32,
    vreinterpretq_s16_s64, vreinterpretq_s16_u8, vreinterpretq_s32_s16, vreinterpretq_s64_s16,
    vreinterpretq_u8_s16, vreinterpretq_u16_s16, vrshlq_s32, vshlq_s32, vst1q_u8, vst3q_u8,
    vsubq_s16 as sub16, vsubq_s32, vuzp1q_s16, vzip1q_s8, vzip1q_s16 as low16, vzip1q_s32,
    vzip1q_s64, vzip2q_s8, vzip2q_s16 as high16, vzip2q_s32, vzip2q_s64,
};

super::kernels!(
    int16x8_t,
    16,
    #[target_feature(enable = "neon")]
);

macro_rules! operations {
    ($($name:ident: $operation:ident, $into:ident, $back:ident;)*) => { $(
        #[inline]
        #[target_feature(enable = "neon")]
        fn $name(a: int16x8_t, b: int16x8_t) -> int16x8_t {
            $back($operation($into(a), $into(b)))
        }
    )* };
}

operations! {
    add32: vaddq_s32, vreinterpretq_s32_s16, vreinterpretq_s16_s32;
    sub32: vsubq_s32, vreinterpretq_s32_s16, vreinterpretq_s16_s32;
    low8: vzip1q_s8, vreinterpretq_s8_s16, vreinterpretq_s16_s8;
    high8: vzip2q_s8, vreinterpretq_s8_s16, vreinterpretq_s16_s8;
    low32: vzip1q_s32, vreinterpretq_s32_s16, vreinterpretq_s16_s32;
    high32: vzip2q_s32, vreinterpretq_s32_s16, vreinterpretq_s16_s32;
    low64: vzip1q_s64, vreinterpretq_s64_s16, vreinterpretq_s16_s64;
    high64: vzip2q_s64, vreinterpretq_s64_s16, vreinterpretq_s16_s64;
}

#[inline]
#[target_feature(enable = "neon")]
fn zero() -> int16x8_t {
    set16(0)
}

#[inline]
#[target_feature(enable = "neon")]
fn set8(value: i8) -> int16x8_t {
    vreinterpretq_s16_s8(vdupq_n_s8(value))
}

#[inline]
#[target_feature(enable = "neon")]
fn set32(value: i32) -> int16x8_t {
    vreinterpretq_s16_s32(vdupq_n_s32(value))
}

#[inline]
#[target_feature(enable = "neon")]
fn madd(a: int16x8_t, b: int16x8_t) -> int16x8_t {
    let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
    let high = vmull_s16(vget_high_s16(a), vget_high_s16(b));
    vreinterpretq_s16_s32(vpaddq_s32(low, high))
}

#[inline]
#[target_feature(enable = "neon")]
fn packs32(a: int16x8_t, b: int16x8_t) -> int16x8_t {
    let (a, b) = (vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b));
    vcombine_s16(vqmovn_s32(a), vqmovn_s32(b))
}

#[inline]
#[target_feature(enable = "neon")]
fn narrow32(a: int16x8_t, b: int16x8_t) -> int16x8_t {
    vuzp1q_s16(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn packs16(a: int16x8_t, b: int16x8_t) -> int16x8_t {
    vreinterpretq_s16_s8(vqmovn_high_s16(vqmovn_s16(a), b))
}

#[inline]
#[target_feature(enable = "neon")]
fn packus16(a: int16x8_t, b: int16x8_t) -> int16x8_t {
    vreinterpretq_s16_u8(vqmovun_high_s16(vqmovun_s16(a), b))
}

#[inline]
#[target_feature(enable = "neon")]
fn shift32(value: int16x8_t, bits: i32) -> int16x8_t {
    vreinterpretq_s16_s32(vshlq_s32(vreinterpretq_s32_s16(value), vdupq_n_s32(-bits)))
}

#[inline]
#[target_feature(enable = "neon")]
fn descale32(value: int16x8_t, bits: i32) -> int16x8_t {
    vreinterpretq_s16_s32(vrshlq_s32(vreinterpretq_s32_s16(value), vdupq_n_s32(-bits)))
}

#[inline]
#[target_feature(enable = "neon")]
fn any(value: int16x8_t) -> bool {
    vmaxvq_u16(vreinterpretq_u16_s16(value)) != 0
}

#[inline]
#[target_feature(enable = "neon")]
fn load8(bytes: &[u8]) -> int16x8_t {
    let bytes = &bytes[..16];
    // SAFETY: reads the slice's 16 bytes, unaligned.
    vreinterpretq_s16_u8(unsafe { vld1q_u8(bytes.as_ptr()) })
}

#[inline]
#[target_feature(enable = "neon")]
fn load16(numbers: &[i16]) -> int16x8_t {
    let numbers = &numbers[..8];
    // SAFETY: reads the slice's 8 numbers, unaligned.
    unsafe { vld1q_s16(numbers.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn repeat(numbers: &[i16]) -> int16x8_t {
    load16(numbers)
}

#[inline]
#[target_feature(enable = "neon")]
fn store_rows(pairs: [int16x8_t; 4], out: &mut [u8], stride: usize) {
    for (pair, both) in pairs.into_iter().enumerate() {
        let mut bytes = [0; 16];
        // SAFETY: writes the array's 16 bytes, unaligned.
        unsafe { vst1q_u8(bytes.as_mut_ptr(), vreinterpretq_u8_s16(both)) }
        for (half, row) in bytes.as_chunks::<8>().0.iter().enumerate() {
            let at = (2 * pair + half) * stride;
            out[at..at + 8].copy_from_slice(row);
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_pixels(red: int16x8_t, green: int16x8_t, blue: int16x8_t, out: &mut [u8; 48]) {
    let pixels = uint8x16x3_t(
        vreinterpretq_u8_s16(red),
        vreinterpretq_u8_s16(green),
        vreinterpretq_u8_s16(blue),
    );
    // SAFETY: writes the array's 48 bytes, unaligned.
    unsafe { vst3q_u8(out.as_mut_ptr(), pixels) }
}
