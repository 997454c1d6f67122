//! Reads the key and the members of one sample.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prolip_image::DecodeError;

use super::grouping::{Sample, Span};
use super::index::{Index, Shard};
use super::raw_members::RawMembers;
use super::tar::{FileSource, Part, Scratch, Source, TarReader};
use crate::buffer::first_bytes;
use crate::error::{IndexError, SampleError, TarError};
use crate::os::{read_exact_at, read_up_to};
use crate::remote::ShardProvider;
use crate::shards::{BLOCK, Regions, SampleId, Stamp};

/// Shards that a thread keeps open. A window of samples touches few shards, and file descriptors are limited.
const OPEN_FILES: usize = 16;
/// Of a larger region only the headers and the needed members are read.
const SMALL_REGION_BYTES: u64 = 1 << 20;

/// Which members are read besides the image.
#[derive(Debug, Clone, Copy, Default)]
pub struct WantedMembers {
    pub txt: bool,
    pub json: bool,
}

/// Those that exist and are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Members<'reader> {
    pub image: &'reader [u8],
    pub txt: Option<&'reader [u8]>,
    pub json: Option<&'reader [u8]>,
}

#[derive(Debug)]
struct OpenShard {
    number: u32,
    file: ShardFile,
    regions: Arc<Regions>,
}

#[derive(Debug)]
enum ShardFile {
    Own(Arc<File>),
    Borrowed(Weak<File>),
}

impl ShardFile {
    fn file(&self) -> Option<Arc<File>> {
        match self {
            Self::Own(file) => Some(Arc::clone(file)),
            Self::Borrowed(file) => file.upgrade(),
        }
    }
}

/// Local shards that the readers of a run have open, one file per shard: one per thread would be thousands.
#[derive(Debug, Default)]
pub struct OpenFiles(Mutex<HashMap<u32, Weak<File>>>);

impl OpenFiles {
    fn get(&self, shard: u32) -> Option<Arc<File>> {
        self.0.lock().get(&shard).and_then(Weak::upgrade)
    }

    fn share(&self, shard: u32, file: File) -> Arc<File> {
        let mut files = self.0.lock();
        if let Some(earlier) = files.get(&shard).and_then(Weak::upgrade) {
            return earlier;
        }
        files.retain(|_, file| file.strong_count() > 0);
        let file = Arc::new(file);
        files.insert(shard, Arc::downgrade(&file));
        file
    }
}

#[derive(Debug, Default)]
pub struct Reader {
    files: Arc<OpenFiles>,
    shards: Vec<OpenShard>,
    row: u32,
    scratch: Scratch,
    sample: Sample,
    buffer: Vec<u8>,
}

impl Reader {
    pub fn sharing(files: &Arc<OpenFiles>, extra_extensions: &[String]) -> Self {
        Self {
            files: Arc::clone(files),
            sample: Sample::with_extra(extra_extensions),
            ..Self::default()
        }
    }

    /// Reads the image, the [`WantedMembers`], and the extra members into `raw_members`. Together they may have `max_bytes`.
    pub fn read(
        &mut self,
        index: &Index,
        provider: Option<&dyn ShardProvider>,
        id: SampleId,
        wanted: WantedMembers,
        max_bytes: u64,
        raw_members: &mut RawMembers,
    ) -> Result<Members<'_>, SampleError> {
        self.sample.clear();
        raw_members.clear();
        self.row = id.sample;
        let (file, regions) = open(&mut self.shards, &self.files, index, provider, id.shard)?;
        self.row = regions.row(id.sample).ok_or(GONE)?;
        let region = regions.get(id.sample).ok_or(GONE)?;
        let length = region.end - region.start;
        if length > SMALL_REGION_BYTES {
            let source = FileSource::until(&file, region.end)?;
            let end = source.end();
            read_sample_headers(source, region.start, &mut self.scratch, &mut self.sample)?;
            check_complete(end, region.end)?;
            let spans = select_spans(&self.sample, wanted, max_bytes)?;
            for span in &self.sample.extra {
                match span {
                    Some(span) => {
                        read_exact_at(&file, raw_members.room(span.size as usize), span.offset)?
                    }
                    None => raw_members.push(None),
                }
            }
            return read_spans(&file, spans, &mut self.buffer);
        }
        let buffer = first_bytes(&mut self.buffer, length as usize);
        let filled = read_up_to(&file, buffer, region.start)?;
        let part =
            Part { bytes: &buffer[..filled], start: region.start, size: file.metadata()?.len() };
        read_sample_headers(part, region.start, &mut self.scratch, &mut self.sample)?;
        check_complete(part.end(), region.end)?;
        let spans = select_spans(&self.sample, wanted, max_bytes)?;
        let bytes = |span: Span| {
            let start = (span.offset - region.start) as usize;
            &part.bytes[start..start + span.size as usize]
        };
        for span in &self.sample.extra {
            raw_members.push(span.map(bytes));
        }
        Ok(Members {
            image: spans[0].map(bytes).unwrap_or_default(),
            txt: spans[1].map(bytes),
            json: spans[2].map(bytes),
        })
    }

    pub fn row(&self) -> u32 {
        self.row
    }

    /// The key of the last sample; empty if its headers could not be read.
    pub fn key(&self) -> &str {
        self.sample.key()
    }
}

const GONE: SampleError = SampleError::Archive(TarError::Header("no sample begins here any more"));
const ANOTHER: SampleError = SampleError::Archive(TarError::Header(
    "another sample begins inside it, so the index does not fit the shard",
));

pub fn read_sample_headers(
    source: impl Source,
    start: u64,
    scratch: &mut Scratch,
    sample: &mut Sample,
) -> Result<(), SampleError> {
    let mut reader = TarReader::new(source, scratch, start);
    while let Some(member) = reader.next_member().map_err(|damage| damage.error)? {
        if !sample.push(&member) {
            return Err(ANOTHER);
        }
    }
    match (sample.key(), reader.has_end()) {
        ("", false) => Err(TarError::NoEnd(start).into()),
        ("", true) => Err(GONE),
        _ => Ok(()),
    }
}

/// Checks that the file reaches to the sample's last block. A part of that block may be missing.
fn check_complete(there: u64, end: u64) -> Result<(), SampleError> {
    if there + BLOCK > end {
        return Ok(());
    }
    let what = "a sample".to_owned();
    Err(TarError::Truncated { what, size: there }.into())
}

/// Where the image, the text and the json are, in this order.
fn select_spans(
    sample: &Sample,
    wanted: WantedMembers,
    max_bytes: u64,
) -> Result<[Option<Span>; 3], SampleError> {
    if let Some(extension) = &sample.duplicate {
        return Err(SampleError::Duplicate(extension.clone()));
    }
    let no_image = || {
        let convertible = sample.convertible.map(|format| DecodeError::Convertible(format).into());
        convertible.unwrap_or(SampleError::NoImage)
    };
    let image = sample.image.ok_or_else(no_image)?;
    let spans =
        [Some(image), sample.txt.filter(|_| wanted.txt), sample.json.filter(|_| wanted.json)];
    let also = sample.extra.iter().filter(|span| !spans.contains(span));
    let sizes = spans.iter().chain(also).flatten().map(|span| span.size);
    let size = sizes.fold(0u64, u64::saturating_add);
    if size > max_bytes {
        return Err(SampleError::TooLarge { size, limit: max_bytes });
    }
    Ok(spans)
}

fn read_spans<'buffer>(
    file: &File,
    spans: [Option<Span>; 3],
    buffer: &'buffer mut Vec<u8>,
) -> Result<Members<'buffer>, SampleError> {
    let size: u64 = spans.iter().flatten().map(|span| span.size).sum();
    let mut rest = first_bytes(buffer, size as usize);
    let mut parts = [None; 3];
    for (part, span) in parts.iter_mut().zip(spans) {
        let Some(span) = span else { continue };
        let (mine, behind) = std::mem::take(&mut rest).split_at_mut(span.size as usize);
        read_exact_at(file, mine, span.offset)?;
        (*part, rest) = (Some(&*mine), behind);
    }
    let [image, txt, json] = parts;
    Ok(Members { image: image.unwrap_or_default(), txt, json })
}

fn open<'shards>(
    shards: &'shards mut Vec<OpenShard>,
    files: &OpenFiles,
    index: &Index,
    provider: Option<&dyn ShardProvider>,
    number: u32,
) -> Result<(Arc<File>, &'shards Regions), SampleError> {
    let place = shards.iter().position(|open| open.number == number);
    let held = place.and_then(|place| shards[place].file.file());
    let file = match (place, held) {
        (Some(place), Some(file)) => {
            shards[..=place].rotate_right(1);
            file
        }
        (place, _) => {
            if let Some(place) = place {
                shards.remove(place);
            }
            let (file, shard) = open_new(files, index, provider, number)?;
            shards.truncate(OPEN_FILES - 1);
            shards.insert(0, shard);
            file
        }
    };
    Ok((file, &shards[0].regions))
}

fn open_new(
    files: &OpenFiles,
    index: &Index,
    provider: Option<&dyn ShardProvider>,
    number: u32,
) -> Result<(Arc<File>, OpenShard), SampleError> {
    let shard = &index.shards()[number as usize];
    if let Some(provider) = provider
        && let Some(ready) = provider.get(number)?
    {
        let regions = match ready.regions {
            Some(regions) => regions,
            None => fitting(index.regions(number)?, &ready.file)?,
        };
        let file = ShardFile::Borrowed(Arc::downgrade(&ready.file));
        let open = OpenShard { number, file, regions };
        return Ok((ready.file, open));
    }
    let file = match files.get(number) {
        Some(file) => file,
        None => files.share(number, open_file(shard)?),
    };
    let open = OpenShard {
        number,
        regions: fitting(index.regions(number)?, &file)?,
        file: ShardFile::Own(Arc::clone(&file)),
    };
    Ok((file, open))
}

/// The regions of an index, if they lie within the file. Two blocks of slack: the padding of the last member may be
/// missing, and damage has a region of one block.
fn fitting(regions: Arc<Regions>, file: &File) -> Result<Arc<Regions>, SampleError> {
    const BEYOND: IndexError = IndexError::Damaged("a shard's samples lie beyond the shard's end");
    if regions.end() > file.metadata()?.len() + 2 * BLOCK {
        return Err(BEYOND.into());
    }
    Ok(regions)
}

fn open_file(shard: &Shard) -> Result<File, SampleError> {
    let path = shard.location.plain_file().ok_or_else(|| {
        let error = io::Error::new(ErrorKind::Unsupported, "it has not been downloaded");
        SampleError::Open(error)
    })?;
    let file = File::open(path).map_err(SampleError::Open)?;
    let change = match &shard.stamp {
        Some(stamp) => stamp.change(&Stamp::of_file(&file.metadata()?)),
        None => None,
    };
    change.map_or(Ok(file), |what| Err(SampleError::Changed(what)))
}
