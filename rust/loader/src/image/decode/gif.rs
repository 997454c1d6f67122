//! Decodes the first frame of a GIF with the `gif` crate, on Pillow's canvas.

use gif::DecodeOptions;

use super::{DecodeError, Rgb8, check_size};

/// Decodes the first frame. The canvas is the screen, enlarged to contain the frame. Outside the frame it has the transparent
/// colour, otherwise colour 0. Colours missing from the palette are black. A GIF without a palette is an error.
pub(super) fn decode(bytes: &[u8], max_pixels: u64, into: &mut Rgb8) -> Result<(), DecodeError> {
    let mut options = DecodeOptions::new();
    options.allow_unknown_blocks(true);
    let mut decoder = options.read_info(bytes)?;
    let (mut width, mut height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    let frame = decoder.next_frame_info()?.ok_or(DecodeError::Empty)?;
    let [left, top] = [usize::from(frame.left), usize::from(frame.top)];
    let [columns, rows] = [usize::from(frame.width), usize::from(frame.height)];
    let around = usize::from(frame.transparent.unwrap_or(0));
    let own_is_ramp = frame.palette.as_deref().is_some_and(is_grey_ramp);
    width = width.max((left + columns) as u32);
    height = height.max((top + rows) as u32);
    check_size(width, height, max_pixels)?;
    if columns == 0 || rows == 0 {
        return Err(DecodeError::Empty);
    }
    let mut colours = [[0; 3]; 256];
    // Pillow ignores a local palette that is a grey ramp, and uses the global one.
    let palette = match decoder.global_palette() {
        Some(shared) if own_is_ramp => shared,
        _ => decoder.palette()?,
    };
    for (colour, rgb) in colours.iter_mut().zip(palette.chunks_exact(3)) {
        colour.copy_from_slice(rgb);
    }
    let mut indices = vec![0; columns * rows];
    decoder.read_into_buffer(&mut indices)?;
    let pixels = into.reshape(width, height);
    if (columns, rows) != (width as usize, height as usize) {
        let pixels = pixels.chunks_exact_mut(3);
        pixels.for_each(|pixel| pixel.copy_from_slice(&colours[around]));
    }
    let lines = pixels.chunks_exact_mut(width as usize * 3).skip(top);
    for (line, indices) in lines.zip(indices.chunks_exact(columns)) {
        for (pixel, &index) in line.chunks_exact_mut(3).skip(left).zip(indices) {
            pixel.copy_from_slice(&colours[usize::from(index)]);
        }
    }
    Ok(())
}

/// Whether every colour `i` is the grey level `i`.
fn is_grey_ramp(palette: &[u8]) -> bool {
    let mut colours = palette.chunks_exact(3).enumerate();
    colours.all(|(i, rgb)| rgb.iter().all(|&value| usize::from(value) == i))
}
