//! Bicubic resizing of planes before they become colours: near Pillow's pixels, not equal to them.
//!
//! The weights are Pillow's with 14 fractional bits instead of 22.

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::coefficients::{Coefficients, PRECISION_BITS};
#[cfg(target_arch = "x86_64")]
use super::level::{Level, level};
use super::resize::Target;
use crate::decode::{Plane, Planes, join};

/// Fractional bits of a weight.
pub(super) const SHORT_BITS: u32 = 14;

/// A weight with [`SHORT_BITS`].
#[inline(always)]
pub(super) fn short(weight: i32) -> i32 {
    const FEWER: u32 = PRECISION_BITS - SHORT_BITS;
    (weight + (1 << (FEWER - 1))) >> FEWER
}

/// Weights, resized planes and the rows between the two passes, reused from call to call.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    columns: Coefficients,
    rows: Coefficients,
    planes: [Vec<u8>; 3],
    between: Vec<u8>,
    #[cfg(target_arch = "x86_64")]
    avx512: avx512::planes::Buffers,
}

/// Resizes to the target's size and cuts its window out. `out` receives three bytes for each pixel of it.
///
/// # Panics
/// If `out` has another length.
pub(super) fn resize(planes: &Planes<'_>, target: Target, buffers: &mut Buffers, out: &mut [u8]) {
    let window = target.window;
    let count = window.width as usize * window.height as usize;
    assert_eq!(out.len(), count * 3, "length of the output");
    let luma = &planes.luma;
    buffers.resize(0, luma, target, true);
    if let Some([blue, red]) = &planes.chroma {
        // The weights of chroma are those of luma where it is as fine.
        let coarse = (blue.columns, blue.rows) != (luma.columns, luma.rows);
        buffers.resize(1, blue, target, coarse);
        buffers.resize(2, red, target, false);
    }
    let [luma, blue, red] = &buffers.planes;
    let chroma = planes.chroma.map(|_| [&blue[..count], &red[..count]]);
    join(&luma[..count], chroma, out);
}

impl Buffers {
    /// Resizes one plane; unless it is `another` one, it lies as the one before.
    fn resize(&mut self, number: usize, plane: &Plane<'_>, target: Target, another: bool) {
        let Self { columns, rows, .. } = self;
        let window = target.window;
        if another {
            columns.compute(plane.columns, target.width, window.x, window.width);
            rows.compute(plane.rows, target.height, window.y, window.height);
        }
        let out = &mut self.planes[number];
        out.resize(window.width as usize * window.height as usize, 0);
        #[cfg(target_arch = "x86_64")]
        if level() == Level::Avx512 {
            let own = &mut self.avx512;
            let scale = plane.columns.length / f64::from(target.width);
            // SAFETY: the processor has the features that the kernels are compiled for.
            unsafe { avx512::planes::resize(plane, columns, rows, (scale, another), own, out) };
            return;
        }
        portable(plane, columns, rows, &mut self.between, out);
    }
}

fn portable(
    plane: &Plane<'_>,
    columns: &Coefficients,
    rows: &Coefficients,
    between: &mut Vec<u8>,
    out: &mut [u8],
) {
    let (first, end) = rows.input_range();
    let width = columns.starts.len();
    between.resize((end - first) * width, 0);
    for (row, between) in (first..end).zip(between.chunks_exact_mut(width)) {
        for (index, out) in between.iter_mut().enumerate() {
            let (start, weights) = columns.taps(index);
            *out = weigh(weights, plane.row(row)[start..].iter());
        }
    }
    for (index, out) in out.chunks_exact_mut(width).enumerate() {
        let (start, weights) = rows.taps(index);
        for (column, out) in out.iter_mut().enumerate() {
            let samples = between[(start - first) * width + column..].iter();
            *out = weigh(weights, samples.step_by(width));
        }
    }
}

fn weigh<'a>(weights: &[i32], samples: impl Iterator<Item = &'a u8>) -> u8 {
    let products = weights.iter().zip(samples);
    let products = products.map(|(&weight, &sample)| short(weight) * i32::from(sample));
    let sum: i32 = products.sum::<i32>() + (1 << (SHORT_BITS - 1));
    (sum >> SHORT_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::level::test_hook::{at, runnable};
    use super::super::resize_box;
    use super::super::{CropBox, Scratch};
    use super::*;
    use crate::decode::{Extent, Rgb8};

    fn noise(length: usize, seed: u32) -> Vec<u8> {
        let mut state = seed | 1;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn whole(width: u32, height: u32, window: CropBox) -> Target {
        Target {
            width,
            height,
            window,
        }
    }

    proptest! {
        #[test]
        fn all_kernels_give_the_same_pixels(
            (x, y) in (0u32..9, 0u32..9),
            (width, height) in (1u32..400, 1u32..300),
            (to_width, to_height) in (1u32..150, 1u32..100),
            coarse in 1u32..4,
            gray in any::<bool>(),
            seed in any::<u32>(),
        ) {
            let stride = (width + x) as usize;
            let samples = [0, 1, 2].map(|plane| {
                noise(stride * (height + y) as usize + Plane::AT_LEAST, seed.wrapping_add(plane))
            });
            let plane = |number: usize, by: u32| {
                let (columns, left) = Extent::of_pixels(x, width, by);
                let (rows, top) = Extent::of_pixels(y, height, by);
                Plane::new(&samples[number][top as usize * stride + left as usize..], stride, columns, rows)
            };
            let planes = Planes { part: CropBox { x, y, width, height }, luma: plane(0, 1), chroma: (!gray).then(|| [plane(1, coarse), plane(2, coarse)]) };
            let window = CropBox { x: to_width / 3, y: to_height / 2, width: to_width - to_width / 3, height: to_height - to_height / 2 };
            let target = whole(to_width, to_height, window);
            let results: Vec<_> = runnable().map(|level| at(level, || {
                let mut out = vec![0; (window.width * window.height * 3) as usize];
                // A buffer that another picture has used.
                let mut buffers = Buffers::default();
                resize(&planes, target, &mut buffers, &mut out);
                resize(&planes, target, &mut buffers, &mut out);
                out
            })).collect();
            for result in &results {
                prop_assert!(*result == results[0]);
            }
        }
    }

    #[test]
    fn grey_pictures_come_out_within_one_of_the_exact_ones() {
        let (width, height) = (123, 97);
        let samples = noise((width * height) as usize + Plane::AT_LEAST, 5);
        let luma = Plane::new(
            &samples,
            width as usize,
            Extent::whole(width),
            Extent::whole(height),
        );
        let pixels = samples[..(width * height) as usize]
            .iter()
            .flat_map(|&value| [value; 3]);
        let image = Rgb8::from_pixels(width, height, pixels.collect()).unwrap();
        for (to_width, to_height) in [(40, 30), (123, 97), (64, 200), (3, 1)] {
            let window = CropBox::whole(to_width, to_height);
            let mut exact = vec![0; (to_width * to_height * 3) as usize];
            let mut fast = exact.clone();
            let crop = CropBox::whole(width, height);
            resize_box(
                &image,
                crop,
                to_width,
                to_height,
                &mut Scratch::default(),
                &mut exact,
            );
            let planes = Planes {
                part: crop,
                luma,
                chroma: None,
            };
            resize(
                &planes,
                whole(to_width, to_height, window),
                &mut Buffers::default(),
                &mut fast,
            );
            let worst = exact.iter().zip(&fast).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(worst.unwrap() <= 1, "{to_width} x {to_height}: {worst:?}");
        }
    }
}
