//! A sample's members → bytes in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::buffer::first_bytes;
use crate::config::MAX_MEMBER_BYTES;
use crate::error::SampleError;
use crate::sample::Span;

/// Open files that a thread keeps: a window of samples touches few shards, and files are a limited good.
const OPEN_FILES: usize = 16;
/// Bytes between two members that are read with them rather than passed over by a second call.
const GAP: u64 = 64 * 1024;

/// Reads members of shards; each thread has its own.
#[derive(Debug, Default)]
pub struct Reader {
    /// The shard's number and its file, the last used first.
    files: Vec<(usize, File)>,
    buffer: Vec<u8>,
}

impl Reader {
    /// The bytes of up to three members of a shard, each where it was asked for.
    ///
    /// # Errors
    /// The shard cannot be opened or read, or a member is too large.
    pub fn read(
        &mut self,
        shard: usize,
        path: &Path,
        spans: [Option<Span>; 3],
    ) -> Result<[Option<&[u8]>; 3], SampleError> {
        let wanted = || spans.iter().flatten();
        if let Some(span) = wanted().find(|span| span.size > MAX_MEMBER_BYTES) {
            return Err(SampleError::MemberTooLarge(span.size));
        }
        let sum: u64 = wanted().map(|span| span.size).sum();
        let start = wanted().map(|span| span.offset).min().unwrap_or(0);
        let end = wanted()
            .map(|span| span.offset + span.size)
            .max()
            .unwrap_or(0);
        let together = end - start <= sum + GAP;
        let needed = if together { end - start } else { sum } as usize;
        let buffer = first_bytes(&mut self.buffer, needed);
        let mut places = [None; 3];
        if together {
            let file = file_of(&mut self.files, shard, path)?;
            file.read_exact_at(buffer, start)?;
            for (place, span) in places.iter_mut().zip(spans) {
                *place = span.map(|span| ((span.offset - start) as usize, span.size as usize));
            }
        } else {
            let file = file_of(&mut self.files, shard, path)?;
            let mut at = 0;
            for (place, span) in places.iter_mut().zip(spans) {
                let Some(span) = span else { continue };
                let size = span.size as usize;
                file.read_exact_at(&mut buffer[at..at + size], span.offset)?;
                *place = Some((at, size));
                at += size;
            }
        }
        let buffer = &*buffer;
        Ok(places.map(|place| place.map(|(at, size)| &buffer[at..at + size])))
    }
}

fn file_of<'files>(
    files: &'files mut Vec<(usize, File)>,
    shard: usize,
    path: &Path,
) -> io::Result<&'files File> {
    match files.iter().position(|&(open, _)| open == shard) {
        Some(place) => files[..=place].rotate_right(1),
        None => {
            let file = File::open(path)?;
            files.truncate(OPEN_FILES - 1);
            files.insert(0, (shard, file));
        }
    }
    Ok(&files[0].1)
}
