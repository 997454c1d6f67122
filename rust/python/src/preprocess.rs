//! Many images at once: decoded, fitted and normalised by threads, straight into one array.

use std::borrow::Cow;
use std::cell::RefCell;
use std::num::NonZeroU16;
use std::path::PathBuf;

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray3, PyUntypedArrayMethods};
use parking_lot::Mutex;
use prolip_image::{
    AugmentDraw, CropBox, Decoder, Fit, Rgb8, Scratch, ValueTable, apply_in_patches, grid_of,
};
use prolip_loader::config::MAX_PIXELS;
use prolip_loader::image::check_level;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::config::read;
use crate::error::config_error;

/// An image as Python has it.
#[derive(FromPyObject)]
pub enum Source<'py> {
    Pixels(PyReadonlyArray3<'py, u8>),
    Bytes(PyBackedBytes),
    Path(PathBuf),
}

/// The same without Python, for threads.
enum Input<'a> {
    Pixels(&'a [u8], [u32; 2]),
    Bytes(&'a [u8]),
    Path(&'a PathBuf),
}

impl<'a> Input<'a> {
    fn of(source: &'a Source<'_>) -> PyResult<Self> {
        Ok(match source {
            Source::Pixels(array) => {
                let sides = [array.shape()[1] as u32, array.shape()[0] as u32];
                Self::Pixels(array.as_slice()?, sides)
            }
            Source::Bytes(bytes) => Self::Bytes(bytes),
            Source::Path(path) => Self::Path(path),
        })
    }
}

/// What becomes of every image.
struct Work {
    fit: Fit,
    /// Height and width of the results; or the side of a patch and how many there may be.
    size: [u32; 2],
    is_native: bool,
    is_turned: bool,
    table: Option<ValueTable>,
}

/// What a thread keeps from image to image.
struct State {
    decoder: Decoder,
    image: Rgb8,
    scratch: Scratch,
    pixels: Vec<u8>,
}

impl State {
    fn new() -> Self {
        Self {
            decoder: Decoder::new(MAX_PIXELS),
            image: Rgb8::default(),
            scratch: Scratch::default(),
            pixels: Vec::new(),
        }
    }
}

thread_local! {
    /// That of a thread of Python's: fresh memory would take as long as resizing.
    static STATE: RefCell<State> = RefCell::new(State::new());
}
/// Larger images are not kept.
const MAX_KEPT_PIXELS: u32 = 1 << 23;

impl Work {
    /// Bytes of a value in the result.
    fn width(&self) -> usize {
        self.table.as_ref().map_or(1, ValueTable::width)
    }

    /// Bytes of an image in the result.
    fn row_bytes(&self) -> usize {
        let [one, other] = self.size.map(|side| side as usize);
        3 * self.width() * one * other * if self.is_native { one } else { 1 }
    }

    /// Writes an image; at native aspect returns its rows and columns of patches.
    fn run(
        &self,
        input: &Input<'_>,
        state: &mut State,
        out: &mut [u8],
    ) -> Result<[i32; 2], String> {
        let State { decoder, image, scratch, pixels } = state;
        let bytes = match input {
            Input::Pixels(pixels, [width, height]) => {
                let given = Rgb8::from_pixels(*width, *height, pixels.to_vec());
                *image = given.ok_or("an array must be uint8 [H, W, 3]")?;
                None
            }
            Input::Bytes(bytes) => Some(Cow::Borrowed(*bytes)),
            Input::Path(path) => {
                Some(Cow::Owned(std::fs::read(path).map_err(|error| error.to_string())?))
            }
        };
        if let Some(bytes) = bytes {
            let decode = if self.is_turned { Decoder::decode_turned } else { Decoder::decode_part };
            let part = |width, height| match self.is_native {
                true => CropBox::whole(width, height),
                false => self.fit.part([width, height], [self.size[1], self.size[0]]),
            };
            decode(decoder, &bytes, image, part).map_err(|error| error.to_string())?;
        }
        let (width, height) = (image.width(), image.height());
        let grid = if self.is_native {
            grid_of(height, width, self.size[0], self.size[1])
        } else {
            (1, 1)
        };
        let used = if self.is_native {
            3 * (grid.0 * grid.1 * self.size[0] * self.size[0]) as usize
        } else {
            out.len() / self.width()
        };
        let out = &mut out[..used * self.width()];
        pixels.resize(used, 0);
        let fitted = if self.table.is_some() { &mut *pixels } else { &mut *out };
        if self.is_native {
            let whole = AugmentDraw::of(CropBox::whole(width, height));
            apply_in_patches(image, &whole, self.fit.filter, self.size[0], grid, scratch, fitted);
        } else {
            self.fit.apply(image, [self.size[1], self.size[0]], scratch, fitted);
        }
        match &self.table {
            Some(table) if self.is_native => table.translate(pixels, out),
            Some(table) => table.translate_to_planes(pixels, out),
            None => {}
        }
        Ok([grid.0 as i32, grid.1 as i32])
    }
}

type Preprocessed<'py> =
    (Bound<'py, PyArray1<u8>>, Bound<'py, PyArray2<i32>>, Vec<(usize, String)>);

/// Return images as a model takes them: their bytes one after another, the rows and columns of patches of each, int32 `[N, 2]`,
/// and which could not be read, with the reasons.
///
/// `size` is height and width, or with `native` the side of a patch and the maximum number of patches. Without a table, uint8
/// `[3, 256, width]`, an image is `[H, W, 3]`, with one `[3, H, W]`; with `native` both are `[L, P * P * 3]`, 0 where there is
/// no patch.
#[expect(clippy::too_many_arguments, reason = "the last three are keywords in Python")]
#[pyfunction]
#[pyo3(signature = (images, fit, size, table = None, *, native = false, turned = false, threads = 1))]
pub fn preprocess<'py>(
    py: Python<'py>,
    images: Vec<Source<'py>>,
    fit: &Bound<'py, PyAny>,
    size: (NonZeroU16, NonZeroU16),
    table: Option<PyReadonlyArray3<'py, u8>>,
    native: bool,
    turned: bool,
    threads: usize,
) -> PyResult<Preprocessed<'py>> {
    check_level().map_err(config_error)?;
    let table = table.map(|table| Ok::<_, PyErr>(ValueTable::new(table.as_slice()?.to_vec())));
    let work = Work {
        fit: read("fit", fit)?,
        size: [size.0.get().into(), size.1.get().into()],
        is_native: native,
        is_turned: turned,
        table: table.transpose()?,
    };
    let inputs = images.iter().map(Input::of).collect::<PyResult<Vec<_>>>()?;
    // NumPy asks for huge pages. With others, the first touch of a long batch takes as long as resizing.
    let array = PyArray1::zeros(py, inputs.len() * work.row_bytes(), false);
    let mut writable = array.readwrite();
    let out = writable.as_slice_mut()?;
    let mut grids = vec![[0; 2]; inputs.len()];
    let failed = Mutex::new(Vec::new());
    py.detach(|| {
        let rows = out.chunks_exact_mut(work.row_bytes()).zip(&mut grids);
        let rows = Mutex::new(rows.zip(&inputs).enumerate());
        let work_on = |state: &mut State| loop {
            let next = rows.lock().next();
            let Some((number, ((out, grid), input))) = next else { break };
            match work.run(input, state, out) {
                Ok(found) => *grid = found,
                Err(reason) => failed.lock().push((number, reason)),
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(inputs.len()) {
                scope.spawn(|| work_on(&mut State::new()));
            }
            STATE.with_borrow_mut(|state| {
                work_on(state);
                if state.image.width().saturating_mul(state.image.height()) > MAX_KEPT_PIXELS {
                    *state = State::new();
                }
            });
        });
    });
    let grids = PyArray1::from_vec(py, grids.into_flattened()).reshape([images.len(), 2])?;
    let mut failed = failed.into_inner();
    failed.sort_unstable();
    drop(writable);
    Ok((array, grids, failed))
}
