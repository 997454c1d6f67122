//! A picture as a JPEG holds it: brightness, and colour at its own resolution.

use super::{CropBox, baseline};

/// Where something lies along one axis of a plane's samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// From where on it reaches, in samples; between two of them where a plane is coarser than the picture.
    pub start: f64,
    /// How far it reaches.
    pub length: f64,
    /// Samples that it touches, the first of which is number 0.
    pub count: u32,
}

impl Extent {
    /// All of `length` samples.
    #[must_use]
    pub fn whole(length: u32) -> Self {
        Self {
            start: 0.0,
            length: f64::from(length),
            count: length,
        }
    }

    /// What `length` pixels from `start` on are in samples of `pixels` pixels each, and the first of them.
    #[must_use]
    pub fn of_pixels(start: u32, length: u32, pixels: u32) -> (Self, u32) {
        let first = start / pixels;
        let extent = Self {
            start: f64::from(start % pixels) / f64::from(pixels),
            length: f64::from(length) / f64::from(pixels),
            count: (start + length).div_ceil(pixels) - first,
        };
        (extent, first)
    }
}

/// The part of a plane that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    samples: &'a [u8],
    stride: usize,
    /// The part along the rows.
    pub columns: Extent,
    /// The part along the columns.
    pub rows: Extent,
}

impl<'a> Plane<'a> {
    /// Samples that can be read of any row, however few count.
    pub const AT_LEAST: usize = 64;

    /// A part whose first sample is the first of `samples`, with rows `stride` samples apart.
    ///
    /// # Panics
    /// If `samples` ends before the last row does, or [`Self::AT_LEAST`] samples of it.
    #[must_use]
    pub fn new(samples: &'a [u8], stride: usize, columns: Extent, rows: Extent) -> Self {
        let last = (rows.count as usize - 1) * stride;
        let length = (columns.count as usize).max(Self::AT_LEAST);
        assert!(last + length <= samples.len(), "samples of all rows");
        Self {
            samples,
            stride,
            columns,
            rows,
        }
    }

    /// A row of the part: those samples that count, and perhaps others behind them.
    #[must_use]
    pub fn row(&self, number: usize) -> &'a [u8] {
        let length = (self.columns.count as usize).max(Self::AT_LEAST);
        &self.samples[number * self.stride..][..length]
    }
}

/// The part of a picture that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Planes<'a> {
    /// Where in the picture it lies.
    pub part: CropBox,
    /// Brightness.
    pub luma: Plane<'a>,
    /// Blue and red less brightness, which lie in the same places; nothing where all is grey.
    pub chroma: Option<[Plane<'a>; 2]>,
}

/// Brightness and colour to packed RGB, as libjpeg converts them.
///
/// # Panics
/// If the planes do not have one sample for each pixel.
pub fn join(luma: &[u8], chroma: Option<[&[u8]; 2]>, out: &mut [u8]) {
    let count = luma.len();
    assert!(
        out.len() == count * 3 && chroma.is_none_or(|planes| planes.map(<[u8]>::len) == [count; 2]),
        "planes and picture of one size"
    );
    let done = baseline::join(luma, chroma, out);
    let (pixels, _) = out[done * 3..].as_chunks_mut::<3>();
    for (at, out) in (done..).zip(pixels) {
        let colour = |plane: usize| chroma.map_or(0, |planes| i32::from(planes[plane][at]) - 128);
        let (blue, red) = (colour(0), colour(1));
        // 16 fractional bits.
        let add = |sum: i32| (i32::from(luma[at]) + ((sum + (1 << 15)) >> 16)).clamp(0, 255) as u8;
        *out = [
            add(91_881 * red),
            add(-22_554 * blue - 46_802 * red),
            add(116_130 * blue),
        ];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_colours_are_joined_alike_whatever_the_number_of_pixels() {
        for luma in [0, 1, 77, 128, 254, 255] {
            let blue: Vec<u8> = (0..=255).flat_map(|value| [value; 256]).collect();
            let red: Vec<u8> = (0..256).flat_map(|_| 0..=255).collect();
            let luma = vec![luma; blue.len()];
            let mut together = vec![0; blue.len() * 3];
            join(&luma, Some([&blue, &red]), &mut together);
            let mut one = [0; 3];
            for at in 0..blue.len() {
                let here = at..=at;
                let colours = [&blue[here.clone()], &red[here.clone()]];
                join(&luma[here], Some(colours), &mut one);
                assert_eq!(one, together[at * 3..][..3], "{at}");
            }
        }
    }

    #[test]
    fn parts_of_coarse_planes_begin_between_samples() {
        let (extent, first) = Extent::of_pixels(7, 9, 2);
        assert_eq!(first, 3);
        assert_eq!((extent.start, extent.length, extent.count), (0.5, 4.5, 5));
        assert_eq!(Extent::of_pixels(7, 9, 1).0, Extent::whole(9));
    }
}
