//! A file that is written in ranges and can be read from the start meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

/// Disk space of one shard, and whether its download is cancelled.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes: AtomicU64,
    called_off: AtomicBool,
}

impl Meter {
    /// Bytes on disk, now or expected.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn set(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn at_least(&self, bytes: u64) {
        self.bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    pub fn call_off(&self) {
        self.called_off.store(true, Ordering::Relaxed);
    }

    pub fn is_called_off(&self) -> bool {
        self.called_off.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Arrived {
    /// The written intervals, start to end. Adjacent ones are merged.
    parts: BTreeMap<u64, u64>,
    /// Set at the end: true if the file is complete, false if the download failed.
    ended: Option<bool>,
}

/// A file and its written intervals.
#[derive(Debug)]
pub(crate) struct PartialFile {
    pub file: File,
    arrived: Mutex<Arrived>,
    more: Condvar,
}

impl PartialFile {
    pub fn new(file: File) -> Self {
        Self {
            file,
            arrived: Mutex::default(),
            more: Condvar::new(),
        }
    }

    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        let end = at + bytes.len() as u64;
        let mut arrived = self.arrived.lock();
        let before = arrived.parts.range(..=at).next_back();
        let start = match before {
            Some((&start, &before_end)) if before_end == at => start,
            _ => at,
        };
        let end = arrived.parts.remove(&end).unwrap_or(end);
        arrived.parts.insert(start, end);
        if start == 0 {
            self.more.notify_all();
        }
        Ok(())
    }

    /// Marks the end. `whole`: the file is complete.
    pub fn end(&self, whole: bool) {
        self.arrived.lock().ended.get_or_insert(whole);
        self.more.notify_all();
    }
}

/// Reads a partial file in order and waits for missing bytes.
#[derive(Debug)]
pub(crate) struct PartialFileReader {
    sink: Arc<PartialFile>,
    at: u64,
}

impl PartialFileReader {
    pub fn new(sink: Arc<PartialFile>) -> Self {
        Self { sink, at: 0 }
    }
}

impl Read for PartialFileReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut arrived = self.sink.arrived.lock();
        let end = loop {
            let end = arrived.parts.get(&0).copied().unwrap_or(0);
            match arrived.ended {
                _ if end > self.at => break end,
                Some(true) => return Ok(0),
                Some(false) => return Err(io::Error::other("its fetching ended early")),
                None => self.sink.more.wait(&mut arrived),
            }
        };
        drop(arrived);
        let length = into.len().min((end - self.at) as usize);
        let got = self.sink.file.read_at(&mut into[..length], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_any_order_is_read_in_order() {
        let sink = Arc::new(PartialFile::new(tempfile::tempfile().unwrap()));
        let mut following = PartialFileReader::new(Arc::clone(&sink));
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            following.read_to_string(&mut text).map(|_| text)
        });
        for (at, bytes) in [(6, "ghi"), (0, "ab"), (3, "def"), (2, "c"), (9, "j")] {
            sink.write(at, bytes.as_bytes()).unwrap();
        }
        assert_eq!(sink.arrived.lock().parts, BTreeMap::from([(0, 10)]));
        sink.end(true);
        assert_eq!(reader.join().unwrap().unwrap(), "abcdefghij");
    }

    #[test]
    fn a_reader_learns_that_the_rest_does_not_come() {
        let sink = Arc::new(PartialFile::new(tempfile::tempfile().unwrap()));
        sink.write(0, b"a").unwrap();
        sink.write(2, b"c").unwrap();
        sink.end(false);
        sink.end(true);
        let mut following = PartialFileReader::new(sink);
        let mut byte = [0; 8];
        assert_eq!(following.read(&mut byte).unwrap(), 1);
        assert!(following.read(&mut byte).is_err());
    }
}
