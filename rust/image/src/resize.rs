//! Resizing with antialiasing in Pillow's fixed-point arithmetic: a pass along the rows and one along the columns, each rounded
//! and clamped to 8 bits. Every pixel equals Pillow's.

use prolip_jpeg::simd::{Level, level, runnable};

use super::coefficients::{Coefficients, PRECISION_BITS, ROUNDING};
use super::crop_rows::CropRows;
use super::kernels;
#[cfg(target_arch = "aarch64")]
use super::kernels::neon;
#[cfg(target_arch = "x86_64")]
use super::kernels::{avx2, avx512};
use super::passes::Passes;
use crate::filter::Filter;
use crate::rgb::{CropBox, Rgb8};

/// Most weights along an axis that are in memory at a time: an image of one row has as many as pixels, and kernels need tens of
/// bytes for each.
const MAX_WEIGHTS: usize = 1 << 18;

#[derive(Debug, Default)]
pub struct Scratch {
    columns: Coefficients,
    rows: Coefficients,
    between: Vec<u8>,
    pub(crate) image: Vec<u8>,
    vectors: kernels::Buffers,
    #[cfg(target_arch = "x86_64")]
    avx512: avx512::resize::Buffers,
}

/// The target size, the wanted part of the result, and the filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) window: CropBox,
    pub(super) filter: Filter,
}

/// As PIL's `image.crop(box).resize(size, filter)`: pixels outside the crop have no influence. Writes `width * height * 3` bytes.
pub fn resize_box(
    image: &Rgb8,
    crop: CropBox,
    filter: Filter,
    [width, height]: [u32; 2],
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    let target = Target { width, height, window: CropBox::whole(width, height), filter };
    resize(image, crop, target, scratch, out);
}

pub(super) fn resize(
    image: &Rgb8,
    crop: CropBox,
    target: Target,
    buffers: &mut Scratch,
    out: &mut [u8],
) {
    let window = target.window;
    let part = |x, y, width, height| {
        let window = CropBox { x: window.x + x, y: window.y + y, width, height };
        Target { window, ..target }
    };
    let weights =
        |count: u32, axis: [u32; 2]| count as usize * Coefficients::stride(target.filter, axis);
    let row_bytes = window.width as usize * 3;
    if window.height > 1 && weights(window.height, [crop.height, target.height]) > MAX_WEIGHTS {
        let upper = window.height / 2;
        let (above, below) = out.split_at_mut(upper as usize * row_bytes);
        resize(image, crop, part(0, 0, window.width, upper), buffers, above);
        resize(image, crop, part(0, upper, window.width, window.height - upper), buffers, below);
    } else if window.width > 1 && weights(window.width, [crop.width, target.width]) > MAX_WEIGHTS {
        let left = window.width / 2;
        for (x, width) in [(0, left), (left, window.width - left)] {
            let bytes = width as usize * 3;
            let mut pixels = vec![0; bytes * window.height as usize];
            resize(image, crop, part(x, 0, width, window.height), buffers, &mut pixels);
            for (row, pixels) in out.chunks_exact_mut(row_bytes).zip(pixels.chunks_exact(bytes)) {
                row[x as usize * 3..][..bytes].copy_from_slice(pixels);
            }
        }
    } else {
        resize_at_once(image, crop, target, buffers, out);
    }
}

fn resize_at_once(
    image: &Rgb8,
    crop: CropBox,
    target: Target,
    buffers: &mut Scratch,
    out: &mut [u8],
) {
    let Some(source) = prepare(image, crop, target, buffers, out) else {
        return;
    };
    let passes = Passes {
        source,
        columns: &buffers.columns,
        rows: &buffers.rows,
        columns_first: columns_first(crop, target),
    };
    match level_for(crop, target) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the features that the kernels are compiled for.
        Level::Avx512 => unsafe { avx512::resize::resize(passes, &mut buffers.avx512, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: likewise.
        Level::Avx2 => unsafe { avx2::resize(passes, &mut buffers.vectors, out) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: likewise.
        Level::Neon => unsafe { neon::resize(passes, &mut buffers.vectors, out) },
        Level::Portable => resize_portable(passes, &mut buffers.between, out),
    }
}

/// Rows shorter than a vector need slower kernels.
pub(super) fn level_for(crop: CropBox, target: Target) -> Level {
    let (width, outputs) = (crop.width, target.window.width);
    let fits = |level: Level| match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::resize::fits(width),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::fits(width, outputs),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => neon::fits(width, outputs),
        Level::Portable => true,
    };
    let fitting = runnable().filter(|&other| other <= level() && fits(other));
    fitting.last().unwrap_or(Level::Portable)
}

fn prepare<'a>(
    image: &'a Rgb8,
    crop: CropBox,
    target: Target,
    buffers: &mut Scratch,
    out: &[u8],
) -> Option<CropRows<'a>> {
    let window = target.window;
    crop.check(image.width(), image.height());
    assert_eq!(
        out.len(),
        window.width as usize * window.height as usize * 3,
        "length of the output"
    );
    let Scratch { columns, rows, .. } = buffers;
    let Target { width, height, filter, .. } = target;
    columns.compute(filter, [crop.width, width], [window.x, window.width]);
    rows.compute(filter, [crop.height, height], [window.y, window.height]);
    (!out.is_empty()).then(|| CropRows::new(image, crop))
}

/// Whether the pass along the columns comes first, as since Pillow 13: if it removes more than twice as many pixels as the other
/// pass. Before, it never did; the results differ by a few levels for tall crops.
fn columns_first(crop: CropBox, target: Target) -> bool {
    let fewer = |from: u32, to: u32| u64::from(from.saturating_sub(to));
    fewer(crop.height, target.height) > 2 * fewer(crop.width, target.width)
}

fn resize_portable(passes: Passes<'_>, between: &mut Vec<u8>, out: &mut [u8]) {
    let Passes { source, columns, rows, columns_first } = passes;
    if columns_first {
        columns_then_rows(source, columns, rows, between, out);
    } else {
        rows_then_columns(source, columns, rows, between, out);
    }
}

fn rows_then_columns(
    source: CropRows<'_>,
    columns: &Coefficients,
    rows: &Coefficients,
    between: &mut Vec<u8>,
    out: &mut [u8],
) {
    let (first, end) = rows.input_range();
    let stride = columns.starts.len() * 3;
    between.resize((end - first) * stride, 0);
    for (row, between) in (first..end).zip(between.chunks_exact_mut(stride)) {
        along_row(source.row(row), columns, between);
    }
    for (index, out) in out.chunks_exact_mut(stride).enumerate() {
        let (start, weights) = rows.taps(index);
        along_columns(&between[(start - first) * stride..], stride, weights, out);
    }
}

fn columns_then_rows(
    source: CropRows<'_>,
    columns: &Coefficients,
    rows: &Coefficients,
    between: &mut Vec<u8>,
    out: &mut [u8],
) {
    between.resize(source.row_bytes, 0);
    for (index, out) in out.chunks_exact_mut(columns.starts.len() * 3).enumerate() {
        let (start, weights) = rows.taps(index);
        along_columns(&source.pixels[start * source.stride..], source.stride, weights, between);
        along_row(between, columns, out);
    }
}

#[inline(always)]
fn along_row(row: &[u8], columns: &Coefficients, out: &mut [u8]) {
    for (index, out) in out.chunks_exact_mut(3).enumerate() {
        let (start, weights) = columns.taps(index);
        let samples = &row[start * 3..][..weights.len() * 3];
        // Four samples at a time fill a vector. The fourth belongs to the next pixel, and its sum is dropped. After the last
        // pixel there is none.
        let mut sums = [ROUNDING; 4];
        for (four, &weight) in samples.windows(4).step_by(3).zip(weights) {
            for (sum, &sample) in sums.iter_mut().zip(four) {
                *sum += i32::from(sample) * weight;
            }
        }
        let (Some(last), Some(&weight)) = (samples.last_chunk::<3>(), weights.last()) else {
            continue;
        };
        for ((out, sum), &sample) in out.iter_mut().zip(sums).zip(last) {
            *out = to_sample(sum + i32::from(sample) * weight);
        }
    }
}

/// Weighted sum of rows that are `stride` bytes apart, starting at the first sample of `rows`.
#[inline(always)]
fn along_columns(rows: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) {
    const BLOCK: usize = 64;
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sums = [ROUNDING; BLOCK];
        for (index, &weight) in weights.iter().enumerate() {
            let row = &rows[index * stride + block * BLOCK..][..out.len()];
            for (sum, &sample) in sums.iter_mut().zip(row) {
                *sum += i32::from(sample) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = to_sample(sum);
        }
    }
}

#[inline(always)]
fn to_sample(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}
