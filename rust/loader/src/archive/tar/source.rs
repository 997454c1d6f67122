//! The bytes of an archive: in a file or in memory.

use std::fs::File;
use std::io;

use crate::os::read_exact_at;

/// Enough for several small members, and not much waste between large ones.
const WINDOW: usize = 16 * 1024;

/// A reader asks for headers and extensions in rising order.
pub trait Source {
    /// Fills `into` from `offset` on. Returns fewer bytes only at the end of the archive.
    fn read_at(&mut self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    fn end(&self) -> u64;

    /// Of the whole archive, in bytes.
    fn size(&self) -> u64;
}

/// Headers are read through a buffer.
#[derive(Debug)]
pub struct FileSource<'file> {
    file: &'file File,
    size: u64,
    /// Offset after the last byte that may be used.
    end: u64,
    window: Vec<u8>,
    start: u64,
}

impl<'file> FileSource<'file> {
    pub fn new(file: &'file File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size, end: size, window: Vec::new(), start: 0 })
    }

    pub fn until(file: &'file File, end: u64) -> io::Result<Self> {
        let whole = Self::new(file)?;
        Ok(Self { end: whole.size.min(end), ..whole })
    }
}

impl Source for FileSource<'_> {
    fn read_at(&mut self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let length = self.end.saturating_sub(offset).min(into.len() as u64) as usize;
        if length == 0 {
            return Ok(0);
        }
        let into = &mut into[..length];
        let end = offset + length as u64;
        if length > WINDOW {
            read_exact_at(self.file, into, offset)?;
            return Ok(length);
        }
        if offset < self.start || end > self.start + self.window.len() as u64 {
            let size = (self.end - offset).min(WINDOW as u64) as usize;
            self.window.clear();
            self.window.resize(size, 0);
            self.start = offset;
            if let Err(error) = read_exact_at(self.file, &mut self.window, offset) {
                // It must not pass for bytes of the file.
                self.window.clear();
                return Err(error);
            }
        }
        let from = (offset - self.start) as usize;
        into.copy_from_slice(&self.window[from..from + length]);
        Ok(length)
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// A part of an archive in memory.
#[derive(Debug, Clone, Copy)]
pub struct Part<'bytes> {
    pub bytes: &'bytes [u8],
    /// Its offset in the archive.
    pub start: u64,
    /// Of the whole archive, in bytes.
    pub size: u64,
}

impl Source for Part<'_> {
    fn read_at(&mut self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let rest = self.bytes.get(from..).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn size(&self) -> u64 {
        self.size
    }
}
