//! Replaces pixel values by longer ones, such as normalised floats.

const ENTRIES: usize = 3 * 256;

/// The bytes that replace each value of red, green and blue.
#[derive(Debug)]
pub struct ValueTable(Vec<u8>);

impl ValueTable {
    /// From `[3, 256, width]` bytes. The width is 2 or 4.
    pub fn new(bytes: Vec<u8>) -> Self {
        let lengths = [2 * ENTRIES, 4 * ENTRIES];
        assert!(lengths.contains(&bytes.len()), "a table of {} bytes", bytes.len());
        Self(bytes)
    }

    /// Bytes per value.
    pub fn width(&self) -> usize {
        self.0.len() / ENTRIES
    }

    /// Writes the values of packed RGB `pixels`, `width` bytes each.
    pub fn translate(&self, pixels: &[u8], out: &mut [u8]) {
        match self.width() {
            2 => translate::<2>(&self.0, pixels, out),
            _ => translate::<4>(&self.0, pixels, out),
        }
    }

    /// As [`Self::translate`], with all red values before green and blue.
    pub fn translate_to_planes(&self, pixels: &[u8], out: &mut [u8]) {
        match self.width() {
            2 => to_planes::<2>(&self.0, pixels, out),
            _ => to_planes::<4>(&self.0, pixels, out),
        }
    }
}

// The width and the table's length are constants, so that no entry is copied in a loop or checked.
fn translate<const WIDTH: usize>(table: &[u8], pixels: &[u8], out: &mut [u8]) {
    let (table, values) = (table.as_chunks::<WIDTH>().0, out.as_chunks_mut::<WIDTH>().0);
    let Some(table) = table.first_chunk::<ENTRIES>() else { return };
    for (pixel, out) in pixels.as_chunks::<3>().0.iter().zip(values.as_chunks_mut::<3>().0) {
        for channel in 0..3 {
            out[channel] = table[256 * channel + usize::from(pixel[channel])];
        }
    }
}

fn to_planes<const WIDTH: usize>(table: &[u8], pixels: &[u8], out: &mut [u8]) {
    let (pixels, values) = (pixels.as_chunks::<3>().0, out.as_chunks_mut::<WIDTH>().0);
    let Some(table) = table.as_chunks::<WIDTH>().0.first_chunk::<ENTRIES>() else { return };
    let (red, rest) = values.split_at_mut(pixels.len());
    let (green, blue) = rest.split_at_mut(pixels.len());
    for (((pixel, red), green), blue) in pixels.iter().zip(red).zip(green).zip(blue) {
        *red = table[usize::from(pixel[0])];
        *green = table[256 + usize::from(pixel[1])];
        *blue = table[512 + usize::from(pixel[2])];
    }
}

#[cfg(test)]
#[path = "value_table_tests.rs"]
mod tests;
