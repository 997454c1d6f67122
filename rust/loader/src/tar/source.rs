//! Where an archive's bytes come from: a file, memory, or a stream that only goes forward.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::fs::FileExt;

/// Bytes read at once from a file: several headers of small members, not much waste between large ones.
const WINDOW: usize = 16 * 1024;

/// Bytes of an archive, by their offset in it. A reader asks for headers and extensions, in rising order.
pub trait Source {
    /// Fills `into` with the bytes at `offset`; gives fewer only where the archive ends.
    ///
    /// # Errors
    /// The bytes cannot be read.
    fn read_at(&mut self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Whether the archive has at least `length` bytes.
    ///
    /// # Errors
    /// The bytes before it cannot be read.
    fn reaches(&mut self, length: u64) -> io::Result<bool>;

    /// The archive's bytes, or those seen so far.
    fn known(&self) -> u64;
}

/// A file, of which headers are read by windows.
#[derive(Debug)]
pub struct FileSource<'file> {
    file: &'file File,
    size: u64,
    /// Where it ends for the reader.
    end: u64,
    window: Vec<u8>,
    start: u64,
}

impl<'file> FileSource<'file> {
    /// The whole file.
    ///
    /// # Errors
    /// The file cannot be examined.
    pub fn new(file: &'file File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self {
            file,
            size,
            end: size,
            window: Vec::new(),
            start: 0,
        })
    }

    /// The file up to `end`.
    ///
    /// # Errors
    /// The file cannot be examined.
    pub fn until(file: &'file File, end: u64) -> io::Result<Self> {
        let whole = Self::new(file)?;
        Ok(Self {
            end: whole.size.min(end),
            ..whole
        })
    }

    /// Where it ends for the reader.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
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
            self.file.read_exact_at(into, offset)?;
            return Ok(length);
        }
        if offset < self.start || end > self.start + self.window.len() as u64 {
            let size = (self.end - offset).min(WINDOW as u64) as usize;
            // Nothing is in the window while it is filled: a failure must not leave what was never read.
            self.window.clear();
            self.window.resize(size, 0);
            self.start = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.window, offset) {
                self.window.clear();
                return Err(error);
            }
        }
        let from = (offset - self.start) as usize;
        into.copy_from_slice(&self.window[from..from + length]);
        Ok(length)
    }

    fn reaches(&mut self, length: u64) -> io::Result<bool> {
        Ok(length <= self.end)
    }

    fn known(&self) -> u64 {
        self.size
    }
}

/// A part of an archive that lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct Part<'bytes> {
    /// The bytes.
    pub bytes: &'bytes [u8],
    /// Where they begin in the archive.
    pub start: u64,
    /// Bytes of the archive.
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

    fn reaches(&mut self, length: u64) -> io::Result<bool> {
        Ok(length <= self.start + self.bytes.len() as u64)
    }

    fn known(&self) -> u64 {
        self.size
    }
}

/// A stream that is read once, from its beginning.
#[derive(Debug)]
pub struct Forward<R> {
    stream: R,
    at: u64,
}

impl<R: BufRead> Forward<R> {
    /// A stream that stands at an archive's beginning.
    pub fn new(stream: R) -> Self {
        Self { stream, at: 0 }
    }

    /// Goes on to `offset`, or to the end; a stream that is behind it already is a bug of the caller.
    fn advance(&mut self, offset: u64) -> io::Result<()> {
        debug_assert!(self.at <= offset);
        while self.at < offset {
            let ready = self.stream.fill_buf()?.len() as u64;
            if ready == 0 {
                break;
            }
            let passed = ready.min(offset - self.at);
            self.stream.consume(passed as usize);
            self.at += passed;
        }
        Ok(())
    }
}

impl<R: BufRead> Source for Forward<R> {
    fn read_at(&mut self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.advance(offset)?;
        if self.at != offset {
            return Ok(0);
        }
        let mut filled = 0;
        while filled < into.len() {
            let ready = self.stream.fill_buf()?;
            let length = ready.len().min(into.len() - filled);
            if length == 0 {
                break;
            }
            into[filled..filled + length].copy_from_slice(&ready[..length]);
            self.stream.consume(length);
            self.at += length as u64;
            filled += length;
        }
        Ok(filled)
    }

    fn reaches(&mut self, length: u64) -> io::Result<bool> {
        self.advance(length)?;
        Ok(self.at >= length)
    }

    fn known(&self) -> u64 {
        self.at
    }
}
