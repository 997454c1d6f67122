//! WebP by libwebp. Only this module calls it.

use std::mem::MaybeUninit;
use std::ptr;

use libwebp_sys as webp;

use super::{DecodeError, Rgb8, check_size};

pub(super) fn decode(bytes: &[u8], max_pixels: u64, into: &mut Rgb8) -> Result<(), DecodeError> {
    let mut features = MaybeUninit::<webp::WebPBitstreamFeatures>::zeroed();
    // SAFETY: `bytes` is readable for its length and `features` is writable.
    let status =
        unsafe { webp::WebPGetFeatures(bytes.as_ptr(), bytes.len(), features.as_mut_ptr()) };
    if status != webp::VP8StatusCode::VP8_STATUS_OK {
        return Err(reason(status));
    }
    // SAFETY: a plain struct of integers, initially zero, for which all bit patterns are valid.
    let features = unsafe { features.assume_init() };
    let (Ok(width), Ok(height)) = (u32::try_from(features.width), u32::try_from(features.height))
    else {
        return Err(DecodeError::Webp("a negative size"));
    };
    check_size(width, height, max_pixels)?;
    if !is_sound(bytes) {
        return Err(DecodeError::Webp("damaged or truncated container"));
    }
    let pixels = into.reshape(width, height);
    if features.has_animation != 0 {
        return first_frame(bytes, width, height, pixels);
    }
    let Ok(stride) = i32::try_from(width as usize * 3) else {
        return Err(DecodeError::Webp("rows too long"));
    };
    // SAFETY: `bytes` is readable and `pixels` writable for the lengths given; the library checks that
    // stride * height fits into the output's length before it writes.
    let end = unsafe {
        webp::WebPDecodeRGBInto(
            bytes.as_ptr(),
            bytes.len(),
            pixels.as_mut_ptr(),
            pixels.len(),
            stride,
        )
    };
    if end.is_null() { Err(DecodeError::Webp("damaged or truncated data")) } else { Ok(()) }
}

/// Whether the chunks are complete and consistent. PIL checks this, because it reads still images as animations.
fn is_sound(bytes: &[u8]) -> bool {
    let data = webp::WebPData { bytes: bytes.as_ptr(), size: bytes.len() };
    let version = webp::WEBP_DEMUX_ABI_VERSION as i32;
    // SAFETY: `data` describes a readable buffer that outlives everything made from it here.
    let parts = unsafe { webp::WebPDemuxInternal(&data, 0, ptr::null_mut(), version) };
    if parts.is_null() {
        return false;
    }
    // SAFETY: the pointer is not null, came from the call above and is not used after this.
    unsafe { webp::WebPDemuxDelete(parts) };
    true
}

struct Animation(*mut webp::WebPAnimDecoder);

impl Drop for Animation {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `WebPAnimDecoderNew`, is not null, and is not used after this.
        unsafe { webp::WebPAnimDecoderDelete(self.0) }
    }
}

fn first_frame(
    bytes: &[u8],
    width: u32,
    height: u32,
    pixels: &mut [u8],
) -> Result<(), DecodeError> {
    let data = webp::WebPData { bytes: bytes.as_ptr(), size: bytes.len() };
    // SAFETY: `data` describes a readable buffer that outlives the decoder; null options mean the defaults
    // (RGBA, no threads).
    let decoder = unsafe { webp::WebPAnimDecoderNew(&data, ptr::null()) };
    if decoder.is_null() {
        return Err(DecodeError::Webp("damaged animation"));
    }
    let animation = Animation(decoder);
    let mut info = MaybeUninit::<webp::WebPAnimInfo>::zeroed();
    let mut frame = ptr::null_mut();
    let mut timestamp = 0;
    // SAFETY: the decoder is alive and all outputs are writable; a frame stays valid until the next call.
    let (known, got) = unsafe {
        (
            webp::WebPAnimDecoderGetInfo(animation.0, info.as_mut_ptr()) != 0,
            webp::WebPAnimDecoderGetNext(animation.0, &mut frame, &mut timestamp) != 0,
        )
    };
    // SAFETY: a plain struct of integers, initially zero.
    let info = unsafe { info.assume_init() };
    if !known
        || !got
        || frame.is_null()
        || (info.canvas_width, info.canvas_height) != (width, height)
    {
        return Err(DecodeError::Webp("damaged animation"));
    }
    // SAFETY: the frame is the canvas just checked, 4 bytes per pixel, alive while `animation` is.
    let canvas = unsafe { std::slice::from_raw_parts(frame, width as usize * height as usize * 4) };
    for (out, pixel) in pixels.chunks_exact_mut(3).zip(canvas.chunks_exact(4)) {
        out.copy_from_slice(&pixel[..3]);
    }
    Ok(())
}

fn reason(status: webp::VP8StatusCode) -> DecodeError {
    match status {
        webp::VP8StatusCode::VP8_STATUS_NOT_ENOUGH_DATA => DecodeError::Truncated,
        webp::VP8StatusCode::VP8_STATUS_OUT_OF_MEMORY => DecodeError::OutOfMemory,
        webp::VP8StatusCode::VP8_STATUS_UNSUPPORTED_FEATURE => {
            DecodeError::Webp("unsupported feature")
        }
        _ => DecodeError::Webp("damaged header"),
    }
}
