//! A file that is written in ranges and can be read from the start meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::os::{read_at, write_all_at};

/// How often [`Meter`] says that a shard has grown beyond its expected size.
const GROWTH_STEP: u64 = 1 << 20;

/// Disk space of one shard, and whether its download is cancelled.
#[derive(Default)]
pub(crate) struct Meter {
    expected: AtomicU64,
    /// Bytes written, also to a second file that unpacks the first.
    written: AtomicU64,
    /// Whether the server has reported the size of a plain shard.
    is_exact: AtomicBool,
    called_off: AtomicBool,
    /// Called when the shard takes more space than expected.
    grown: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Meter {
    /// A meter that calls `grown` when the shard takes more than `expected` bytes, again for every MiB.
    pub fn watched(expected: u64, grown: impl Fn() + Send + Sync + 'static) -> Self {
        Self { expected: expected.into(), grown: Some(Box::new(grown)), ..Self::default() }
    }

    pub fn bytes(&self) -> u64 {
        let expected = self.expected.load(Ordering::Relaxed);
        expected.max(self.written())
    }

    /// Bytes written since the last restart.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The size of a plain shard, once the server has reported it.
    pub fn exact(&self) -> Option<u64> {
        let exact = self.is_exact.load(Ordering::Relaxed);
        exact.then(|| self.bytes())
    }

    /// Begins a shard, perhaps again. `size` is the number of bytes that the server says it sends.
    pub fn begin(&self, size: Option<u64>, is_packed: bool) {
        self.written.store(0, Ordering::Relaxed);
        let exact = size.is_some() && !is_packed;
        self.is_exact.store(exact, Ordering::Relaxed);
        if let Some(size) = size {
            let before = self.expected.swap(size, Ordering::Relaxed);
            if size > before {
                self.tell();
            }
        }
    }

    pub fn add(&self, bytes: u64) {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        let now = before.saturating_add(bytes);
        if now > self.expected.load(Ordering::Relaxed) && before / GROWTH_STEP != now / GROWTH_STEP
        {
            self.tell();
        }
    }

    pub fn settle(&self, bytes: u64) {
        self.written.store(0, Ordering::Relaxed);
        self.expected.store(bytes, Ordering::Relaxed);
    }

    fn tell(&self) {
        if let Some(grown) = &self.grown {
            grown();
        }
    }

    pub fn call_off(&self) {
        self.called_off.store(true, Ordering::Relaxed);
    }

    pub fn is_called_off(&self) -> bool {
        self.called_off.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Arrived {
    /// The written intervals, start to end. Adjacent ones are merged.
    parts: BTreeMap<u64, u64>,
    /// Set at the end: true if the file is complete, false if the download failed.
    ended: Option<bool>,
}

pub(crate) struct PartialFile {
    pub file: File,
    meter: Arc<Meter>,
    arrived: Mutex<Arrived>,
    more: Condvar,
}

impl PartialFile {
    pub fn new(file: File, meter: &Arc<Meter>) -> Self {
        Self { file, meter: Arc::clone(meter), arrived: Mutex::default(), more: Condvar::new() }
    }

    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        write_all_at(&self.file, bytes, at)?;
        self.meter.add(bytes.len() as u64);
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

    /// Marks the end, and whether the file is complete.
    pub fn end(&self, whole: bool) {
        self.arrived.lock().ended.get_or_insert(whole);
        self.more.notify_all();
    }
}

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
        let got = read_at(&self.sink.file, &mut into[..length], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}
