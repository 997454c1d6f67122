//! JPEG by libjpeg-turbo (TurboJPEG). Only this module calls it.

use std::ffi::CStr;
use std::ptr::NonNull;

use memchr::memchr;
use turbojpeg_sys as tj;

use super::{DecodeError, Rgb8, check_size};

const END: u8 = 0xD9;

/// Scans x pixels: every scan of a progressive image touches every pixel, and may take a hundred bytes of the file. 90 million
/// pixels may have 23 scans, which take three seconds. Encoders write about ten; PIL has no limit.
const MAX_WORK: u64 = 1 << 31;
/// In pixels.
const SCAN_COST: u64 = 1 << 20;

/// Checks the number of scans without decoding them.
pub(super) fn check_scans(bytes: &[u8], width: u32, height: u32) -> Result<(), DecodeError> {
    let scans = markers(bytes).filter(|&marker| marker == 0xDA).count() as u64;
    if scans > max_scans(width, height) {
        return Err(DecodeError::TooManyScans { scans, width, height });
    }
    Ok(())
}

fn max_scans(width: u32, height: u32) -> u64 {
    // Whatever the limit of pixels, ordinary files pass: none has more than 18 scans.
    (MAX_WORK / (u64::from(width) * u64::from(height) + SCAN_COST)).max(18)
}

#[derive(Debug)]
pub(super) struct Decompressor(NonNull<std::ffi::c_void>);

// SAFETY: a TurboJPEG handle is not bound to the thread that created it. It must not be used by two threads at once, and
// `&mut self` on every method rules that out.
unsafe impl Send for Decompressor {}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: the handle came from `tj3Init` and nobody uses it after this.
        unsafe { tj::tj3Destroy(self.0.as_ptr()) }
    }
}

impl Decompressor {
    pub(super) fn new() -> Result<Self, DecodeError> {
        // SAFETY: no preconditions; null is the only failure.
        let handle = unsafe { tj::tj3Init(tj::TJINIT_TJINIT_DECOMPRESS as i32) };
        let this = NonNull::new(handle.cast()).map(Self).ok_or(DecodeError::OutOfMemory)?;
        // ICC profiles are not used. By default each would be copied.
        // SAFETY: the handle is valid; the parameter and its value are documented ones.
        unsafe { tj::tj3Set(this.0.as_ptr(), tj::TJPARAM_TJPARAM_SAVEMARKERS as i32, 0) };
        Ok(this)
    }

    /// With PIL's defaults: the accurate integer DCT and smooth chroma upsampling.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        max_pixels: u64,
        into: &mut Rgb8,
    ) -> Result<(), DecodeError> {
        // SAFETY: the handle is valid and `bytes` is a readable buffer of the length given.
        let status =
            unsafe { tj::tj3DecompressHeader(self.0.as_ptr(), bytes.as_ptr(), bytes.len() as u64) };
        self.check(status, bytes)?;
        let width = self.dimension(tj::TJPARAM_TJPARAM_JPEGWIDTH)?;
        let height = self.dimension(tj::TJPARAM_TJPARAM_JPEGHEIGHT)?;
        check_size(width, height, max_pixels)?;
        check_scans(bytes, width, height)?;
        // In damaged data the library may find scans that the check does not.
        let limit = max_scans(width, height) as i32;
        // SAFETY: the handle is valid; the parameter and its value are documented ones.
        unsafe { tj::tj3Set(self.0.as_ptr(), tj::TJPARAM_TJPARAM_SCANLIMIT as i32, limit) };
        let space = self.parameter(tj::TJPARAM_TJPARAM_COLORSPACE);
        if space == tj::TJCS_TJCS_CMYK as i32 || space == tj::TJCS_TJCS_YCCK as i32 {
            let mut inks = vec![0; width as usize * height as usize * 4];
            self.decompress(bytes, &mut inks, width, height, tj::TJPF_TJPF_CMYK)?;
            inverted_cmyk_to_rgb(&inks, into.reshape(width, height));
            Ok(())
        } else {
            self.decompress(bytes, into.reshape(width, height), width, height, tj::TJPF_TJPF_RGB)
        }
    }

    fn decompress(
        &mut self,
        bytes: &[u8],
        pixels: &mut [u8],
        width: u32,
        height: u32,
        format: tj::TJPF,
    ) -> Result<(), DecodeError> {
        let channels = if format == tj::TJPF_TJPF_CMYK { 4 } else { 3 };
        assert!(pixels.len() >= width as usize * height as usize * channels);
        // SAFETY: the handle is valid and `bytes` is readable. The library writes width * height pixels of
        // `channels` bytes in rows without padding (pitch 0), where width and height come from the same
        // header of the same bytes that it reads again now; the assertion above is that size.
        let status = unsafe {
            tj::tj3Decompress8(
                self.0.as_ptr(),
                bytes.as_ptr(),
                bytes.len() as u64,
                pixels.as_mut_ptr(),
                0,
                format,
            )
        };
        self.check(status, bytes)
    }

    fn parameter(&self, parameter: tj::TJPARAM) -> i32 {
        // SAFETY: the handle is valid; reading any parameter is allowed at any time.
        unsafe { tj::tj3Get(self.0.as_ptr(), parameter as i32) }
    }

    fn dimension(&self, parameter: tj::TJPARAM) -> Result<u32, DecodeError> {
        match u32::try_from(self.parameter(parameter)) {
            Ok(size) if size > 0 => Ok(size),
            _ => Err(DecodeError::Jpeg("no image in the file".to_owned())),
        }
    }

    /// Fails on errors, and at the end of the data, where PIL raises and the library fills the rest with grey. PIL ignores the
    /// other warnings.
    fn check(&self, status: i32, bytes: &[u8]) -> Result<(), DecodeError> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the handle is valid; the result is a NUL-terminated string owned by the library that stays
        // valid until its next call on this thread, and it is copied before that.
        let message =
            unsafe { CStr::from_ptr(tj::tj3GetErrorStr(self.0.as_ptr())) }.to_string_lossy();
        // The error code makes a failure after a warning a warning too, so check the text.
        if !WARNINGS.iter().any(|start| message.starts_with(start)) {
            return Err(DecodeError::Jpeg(message.into_owned()));
        }
        if message.starts_with(PREMATURE_END) || markers(bytes).all(|marker| marker != END) {
            return Err(DecodeError::Truncated);
        }
        Ok(())
    }
}

const PREMATURE_END: &str = "Premature end of JPEG file";

/// How libjpeg's warnings start. All rows are decoded then, though some may be wrong.
const WARNINGS: [&str; 8] = [
    "Corrupt JPEG data",
    PREMATURE_END,
    "Inconsistent progression sequence",
    "Unknown Adobe color transform",
    "Warning: ",
    "Invalid SOS parameters for sequential JPEG",
    "Corrupt color profile",
    "Application transferred too many scanlines",
];

/// Up to the end of the image, searched as libjpeg does: over segments by their length, and over entropy-coded data up to the
/// next marker. Stuffed zeros and fill bytes are among them.
fn markers(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let mut at = 2;
    std::iter::from_fn(move || {
        at += memchr(0xFF, bytes.get(at..)?)? + 1;
        let &marker = bytes.get(at)?;
        at += match marker {
            // The next 0xFF may start the marker.
            0xFF => 0,
            // A restart, or another marker without content.
            0x00 | 0x01 | 0xD0..=0xD8 => 1,
            END => bytes.len(),
            _ => 1 + usize::from(u16::from_be_bytes(*bytes.get(at + 1..)?.first_chunk()?)),
        };
        Some(marker)
    })
}

/// With PIL's integer arithmetic. As in PIL, CMYK in a JPEG counts as inverted, whatever the Adobe marker says.
fn inverted_cmyk_to_rgb(cmyk: &[u8], rgb: &mut [u8]) {
    for (ink, out) in cmyk.chunks_exact(4).zip(rgb.chunks_exact_mut(3)) {
        let white = i32::from(ink[3]);
        for (out, &ink) in out.iter_mut().zip(ink) {
            let product = (255 - i32::from(ink)) * white + 128;
            let covered = ((product >> 8) + product) >> 8;
            *out = (white - covered).max(0) as u8;
        }
    }
}
