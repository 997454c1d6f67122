//! PNG by the crate `png`, with every sample type converted to RGB as PIL does.

use std::io::Cursor;

use png::{BitDepth, ColorType, DecodeOptions, Decoder, Limits, Reader};

use super::{DecodeError, Rgb8, check_size};

pub(super) fn decode(bytes: &[u8], max_pixels: u64, into: &mut Rgb8) -> Result<(), DecodeError> {
    let mut reader = read_header(bytes, max_pixels)?;
    let (width, height) = reader.info().size();
    let (color, depth) = reader.output_color_type();
    let palette = reader.info().palette.as_deref().unwrap_or(&[]).to_vec();
    let pixels = into.reshape(width, height);
    let rows = pixels.chunks_exact_mut(width as usize * 3);
    let direct = (color, depth) == (ColorType::Rgb, BitDepth::Eight);
    if reader.info().interlaced {
        let Some(size) = reader.output_buffer_size() else {
            return Err(DecodeError::TooLarge { width, height, max_pixels });
        };
        // Samples of less than a byte are OR-ed into it.
        let mut samples = vec![0; size];
        let line = reader.next_frame(&mut samples)?.line_size;
        for (samples, out) in samples.chunks_exact(line.max(1)).zip(rows) {
            expand_row(samples, out, color, depth, &palette);
        }
        return Ok(());
    }
    // Row by row: like PIL, accept a file that ends after its last row.
    let mut samples = vec![0; reader.output_line_size(width).unwrap_or(0)];
    for out in rows {
        if direct {
            reader.read_row(out)?;
        } else {
            reader.read_row(&mut samples)?;
            expand_row(&samples, out, color, depth, &palette);
        }
    }
    // Like PIL, ignore everything that follows.
    Ok(())
}

fn read_header(bytes: &[u8], max_pixels: u64) -> Result<Reader<Cursor<&[u8]>>, DecodeError> {
    if !checksums_are_right(bytes) {
        return Err(DecodeError::Checksum);
    }
    let mut options = DecodeOptions::default();
    // PIL checks the samples by the checksum of the zlib stream, not by the CRCs of their chunks.
    options.set_ignore_crc(true);
    options.set_ignore_adler32(false);
    // Text and profiles are not used, so damage in them is not an error.
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    let (width, height) = decoder.read_header_info()?.size();
    check_size(width, height, max_pixels)?;
    // At most 8 bytes per pixel. The rest is for chunks.
    decoder.set_limits(Limits {
        bytes: usize::try_from(max_pixels.saturating_mul(8))
            .unwrap_or(usize::MAX)
            .saturating_add(1 << 24),
    });
    Ok(decoder.read_info()?)
}

/// Of the chunks before the samples. A truncated one is not checked.
fn checksums_are_right(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((length, chunk)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((content, behind)) = chunk.split_at_checked(length.saturating_add(4)) else {
            break;
        };
        let Some((checksum, next)) = behind.split_first_chunk() else {
            break;
        };
        if content.starts_with(b"IDAT") {
            break;
        }
        if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
            return false;
        }
        rest = next;
    }
    true
}

/// Alpha is dropped, not blended. 16-bit grey without alpha is clipped at 255, as in PIL's conversion from `I;16`; other 16-bit
/// samples keep their high byte.
fn expand_row(samples: &[u8], out: &mut [u8], color: ColorType, depth: BitDepth, palette: &[u8]) {
    let out = out.chunks_exact_mut(3);
    match (color, depth) {
        (ColorType::Grayscale, BitDepth::Eight) => {
            out.zip(samples).for_each(|(out, &gray)| out.fill(gray));
        }
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            for (out, gray) in out.zip(samples.chunks_exact(2)) {
                out.fill(if gray[0] == 0 { gray[1] } else { 255 });
            }
        }
        (ColorType::Grayscale, _) => {
            let bits = depth as usize;
            // It maps the brightest sample (1, 3 or 15) to 255.
            let factor = (255 / ((1u16 << bits) - 1)) as u8;
            for (x, out) in out.enumerate() {
                out.fill(packed_sample(samples, x, bits) * factor);
            }
        }
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => {
            out.zip(samples.chunks_exact(4)).for_each(|(out, sample)| out.fill(sample[0]));
        }
        (ColorType::GrayscaleAlpha, _) => {
            out.zip(samples.chunks_exact(2)).for_each(|(out, sample)| out.fill(sample[0]));
        }
        (ColorType::Indexed, _) => {
            for (x, out) in out.enumerate() {
                let index = usize::from(packed_sample(samples, x, depth as usize));
                match palette.get(index * 3..index * 3 + 3) {
                    Some(color) => out.copy_from_slice(color),
                    None => out.fill(0),
                }
            }
        }
        (ColorType::Rgb | ColorType::Rgba, _) => {
            let step = if depth == BitDepth::Sixteen { 2 } else { 1 };
            let channels = if color == ColorType::Rgba { 4 } else { 3 };
            for (out, sample) in out.zip(samples.chunks_exact(channels * step)) {
                (out[0], out[1], out[2]) = (sample[0], sample[step], sample[2 * step]);
            }
        }
    }
}

/// Sample `x` of a row of packed samples of 1, 2, 4 or 8 bits, high bits first.
fn packed_sample(row: &[u8], x: usize, bits: usize) -> u8 {
    let at = x * bits;
    let byte = row.get(at / 8).copied().unwrap_or(0);
    if bits == 8 { byte } else { (byte >> (8 - bits - at % 8)) & ((1 << bits) - 1) }
}
