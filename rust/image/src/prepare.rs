//! The one way from encoded images to the values of a model, for a loader's batches and for lists.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::{
    AugmentDraw, CropBox, DecodeError, Decoder, Fit, MAX_PIXELS, Rgb8, Scratch, ValueTable, apply,
    apply_in_patches, grid_of,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Height and width.
    Fixed([u32; 2]),
    /// Patches of this side, at the image's own aspect ratio.
    Native(u32),
}

impl Form {
    /// Of an image or a patch.
    pub fn bytes(self) -> usize {
        let [height, width] = match self {
            Self::Fixed(sides) => sides,
            Self::Native(side) => [side; 2],
        };
        height as usize * width as usize * 3
    }
}

#[derive(Debug)]
pub struct Preparation {
    pub form: Form,
    pub fit: Fit,
    /// As EXIF says. `None`: only images at native aspect.
    pub turned: Option<bool>,
    /// Bytes if `None`.
    pub table: Option<ValueTable>,
    /// From the table: in planes of red, green and blue, not side by side.
    pub planes: bool,
}

impl Preparation {
    pub fn value_bytes(&self) -> usize {
        self.table.as_ref().map_or(1, ValueTable::width)
    }

    /// Of a prepared image, or of a patch.
    pub fn cell_bytes(&self) -> usize {
        self.form.bytes() * self.value_bytes()
    }

    fn is_turned(&self) -> bool {
        self.turned.unwrap_or(matches!(self.form, Form::Native(_)))
    }
}

/// What a thread keeps from image to image.
#[derive(Debug)]
pub struct Preparer {
    decoder: Decoder,
    image: Rgb8,
    draw: Option<AugmentDraw>,
    scratch: Scratch,
    /// Before its values are replaced.
    bytes: Vec<u8>,
}

impl Preparer {
    /// Rejects images of more than `max_pixels` pixels.
    pub fn new(max_pixels: u64) -> Self {
        Self {
            decoder: Decoder::new(max_pixels),
            image: Rgb8::default(),
            draw: None,
            scratch: Scratch::default(),
            bytes: Vec::new(),
        }
    }

    /// Returns the width and height after the turn. `draw` gives the augmentation, if any, beforehand: only pixels with an
    /// influence are decoded.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        how: &Preparation,
        draw: impl FnOnce(u32, u32) -> Option<AugmentDraw>,
    ) -> Result<[u32; 2], DecodeError> {
        let (image, drawn) = (&mut self.image, &mut self.draw);
        let part = |width, height| {
            *drawn = draw(width, height);
            match (drawn, how.form) {
                (Some(draw), _) => draw.crop,
                (None, Form::Fixed([rows, columns])) => {
                    how.fit.part([width, height], [columns, rows])
                }
                (None, Form::Native(_)) => CropBox::whole(width, height),
            }
        };
        if how.is_turned() {
            self.decoder.decode_turned(bytes, image, part)?;
        } else {
            self.decoder.decode_part(bytes, image, part)?;
        }
        Ok([image.width(), image.height()])
    }

    /// Returns the rows and columns of patches; `out` is 0 behind them.
    pub fn write(&mut self, how: &Preparation, out: &mut [u8]) -> [u32; 2] {
        let Self { image, draw, scratch, bytes, .. } = self;
        let cut = draw.unwrap_or(AugmentDraw::of(CropBox::whole(image.width(), image.height())));
        let grid = match how.form {
            Form::Fixed(_) => (1, 1),
            Form::Native(patch) => {
                let most = out.len() / how.cell_bytes();
                grid_of(cut.crop.height, cut.crop.width, patch, most as u32)
            }
        };
        let (out, padding) = out.split_at_mut((grid.0 * grid.1) as usize * how.cell_bytes());
        padding.fill(0);
        let pixels = if how.table.is_some() {
            bytes.resize(out.len() / how.value_bytes(), 0);
            &mut *bytes
        } else {
            &mut *out
        };
        match how.form {
            Form::Native(patch) => {
                apply_in_patches(image, &cut, how.fit.filter, patch, grid, scratch, pixels);
            }
            Form::Fixed([height, width]) if draw.is_some() => {
                apply(image, &cut, how.fit.filter, [width, height], scratch, pixels);
            }
            Form::Fixed([height, width]) => how.fit.apply(image, [width, height], scratch, pixels),
        }
        match &how.table {
            Some(table) if how.planes => table.translate_to_planes(bytes, out),
            Some(table) => table.translate(bytes, out),
            None => {}
        }
        grid.into()
    }

    fn prepare(
        &mut self,
        source: &Source<'_>,
        how: &Preparation,
        out: &mut [u8],
    ) -> Result<Prepared, DecodeError> {
        let size = match *source {
            Source::Bytes(bytes) => self.decode(bytes, how, |_, _| None)?,
            Source::Path(path) => self.decode(&read_file(path)?, how, |_, _| None)?,
            Source::Pixels { pixels, size: [width, height], orientation } => {
                self.draw = None;
                self.image.reshape(width, height).copy_from_slice(pixels);
                if how.is_turned() && orientation > 1 {
                    self.image.turn(orientation);
                }
                [self.image.width(), self.image.height()]
            }
        };
        Ok(Prepared { size, grid: self.write(how, out) })
    }
}

/// Largest file of an image, as for the member of a shard.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Devices and pipes may never end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() || found.len() > MAX_FILE_BYTES {
        return Err(io::Error::other("must be a regular file of at most 256 MiB"));
    }
    std::fs::read(path)
}

#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    Bytes(&'a [u8]),
    Path(&'a Path),
    /// Packed RGB, its width and height, and the orientation that EXIF says, 1 to 8.
    Pixels {
        pixels: &'a [u8],
        size: [u32; 2],
        orientation: u32,
    },
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Prepared {
    /// Width and height of the source, after its turn.
    pub size: [u32; 2],
    /// Rows and columns of patches; 1 for images of a fixed size.
    pub grid: [u32; 2],
}

/// A thread keeps its memory up to this: fresh memory would take as long as resizing.
const MAX_KEPT_PIXELS: u32 = 1 << 23;

thread_local! {
    static KEPT: RefCell<Preparer> = RefCell::new(Preparer::new(MAX_PIXELS));
}

/// By threads, each with an equal part of `out`.
pub fn prepare(
    sources: &[Source<'_>],
    how: &Preparation,
    threads: usize,
    out: &mut [u8],
) -> Vec<Result<Prepared, DecodeError>> {
    let mut results: Vec<_> = sources.iter().map(|_| Ok(Prepared::default())).collect();
    let rows = out.chunks_exact_mut((out.len() / sources.len().max(1)).max(1));
    let rows = Mutex::new(rows.zip(sources).zip(&mut results));
    let work = |preparer: &mut Preparer| loop {
        let next = rows.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(((out, source), result)) = next else { break };
        *result = preparer.prepare(source, how, out);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(sources.len()) {
            scope.spawn(|| work(&mut Preparer::new(MAX_PIXELS)));
        }
        KEPT.with_borrow_mut(|kept| {
            work(kept);
            if kept.image.width().saturating_mul(kept.image.height()) > MAX_KEPT_PIXELS {
                *kept = Preparer::new(MAX_PIXELS);
            }
        });
    });
    results
}
