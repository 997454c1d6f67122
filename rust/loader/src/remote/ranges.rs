//! Fetches a shard in parallel ranges. A broken range is resumed at its last byte.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;

use super::origin::Origin;
use super::partial_file::PartialFile;
use super::request::{Answer, Want, in_time};
use super::retry::{Attempts, Failure, PARTIAL_CONTENT, Verdict, write_failure};
use crate::error::Printable;
use crate::shards::Identity;

/// Bytes of one range: large enough to hide the latency of a request, small enough for several ranges per shard.
pub(crate) const RANGE_BYTES: u64 = 8 << 20;
/// Samples with fewer bytes between them are fetched by one request. At 1 Gbit/s with 8 connections and 20 ms until the first byte,
/// another request takes as long as these bytes.
const GAP_BYTES: u64 = 256 << 10;
/// The range of a whole shard, whatever its size.
pub(super) const WHOLE: Range<u64> = 0..u64::MAX;
/// Maximum number of notes kept until they are taken.
const MAX_NOTES: usize = 20;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub retries: u32,
    pub timeout: Duration,
    /// Minimum bytes per second, on average over `timeout`.
    pub min_rate: u64,
    /// Maximum bytes of a shard, as sent and as unpacked.
    pub max_bytes: u64,
    /// Simultaneous ranges of one shard. Fewer than all connections, so that a slow shard doesn't block the others.
    pub ranges: usize,
    pub range_bytes: u64,
}

impl Limits {
    pub fn check_size(&self, bytes: u64) -> Result<(), Failure> {
        if bytes <= self.max_bytes {
            return Ok(());
        }
        let limit = self.max_bytes;
        Err(Failure::terminal(format!(
            "it has more bytes than store.max_shard_bytes = {limit} allows"
        )))
    }

    pub fn check_rate(&self, bytes: u64, elapsed: Duration) -> Result<(), Failure> {
        if bytes as f64 >= self.min_rate as f64 * elapsed.as_secs_f64() {
            return Ok(());
        }
        let rate = self.min_rate;
        Err(Failure::again(format!(
            "only {bytes} bytes in {elapsed:.1?}, fewer than store.min_bytes_per_s = {rate}"
        )))
    }
}

struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    fn arrived(&mut self, bytes: usize, limits: &Limits) -> Result<(), Failure> {
        self.bytes += bytes as u64;
        let elapsed = self.since.elapsed();
        if elapsed < limits.timeout {
            return Ok(());
        }
        limits.check_rate(self.bytes, elapsed)?;
        *self = Self::new();
        Ok(())
    }
}

/// Sentences for the log. Threads store them, and Python fetches them.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn add(&self, note: String) {
        let mut notes = self.0.lock();
        if notes.len() < MAX_NOTES {
            notes.push(note);
        }
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// The ranges to fetch for `samples`, neighbours joined. The whole shard, if they are at least half of its `size`.
pub(super) fn joined(samples: &[Range<u64>], size: u64) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for sample in samples {
        match joined.last_mut() {
            Some(last) if sample.start <= last.end + GAP_BYTES => last.end = sample.end,
            _ => joined.push(sample.clone()),
        }
    }
    if (1..size.div_ceil(2)).contains(&num_bytes(&joined)) { joined } else { vec![WHOLE] }
}

pub(super) fn num_bytes(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum()
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer<'store> {
    pub source: &'store Origin,
    /// What is fetched, if the server has ranges.
    pub wanted: &'store [Range<u64>],
    /// Limits the simultaneous requests of all shards.
    pub connections: &'store Semaphore,
    pub limits: Limits,
    pub address: &'store str,
    pub notes: &'store Notes,
}

/// A shard after its first response: its identity is known, and the body is still unread.
pub(crate) struct Opened<'store> {
    pub identity: Identity,
    /// What is fetched: everything if the server has no ranges.
    pub ranges: Vec<Range<u64>>,
    answer: Answer,
    permit: SemaphorePermit<'store>,
}

impl Opened<'_> {
    /// Lazily: a server may claim any size.
    fn parts(&self, range_bytes: u64) -> impl Iterator<Item = Part> + use<> {
        let (size, ranged) = (self.identity.size, self.answer.ranged);
        let length = if ranged { range_bytes } else { u64::MAX };
        self.ranges.clone().into_iter().flat_map(move |range| {
            range.clone().step_by(length as usize).map(move |start| {
                let end = range.end.min(start.saturating_add(length));
                Part { start, end: size.map(|_| end), ranged }
            })
        })
    }
}

/// One range of a shard, or all of it if the server has no ranges.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: u64,
    /// `None` if the server does not report the size.
    end: Option<u64>,
    ranged: bool,
}

impl<'store> Transfer<'store> {
    pub async fn open(&self, attempts: &mut Attempts) -> Result<Opened<'store>, Failure> {
        let Range { start, end } = self.wanted[0];
        let first = Want::Range(start, end.min(start + self.limits.range_bytes));
        let mut want = first;
        loop {
            let permit = self.permit().await?;
            match self.ask(want, None).await {
                Ok(answer) => {
                    let identity = answer.identity.clone();
                    let size = identity.size.unwrap_or(u64::MAX);
                    let wanted = if answer.ranged { self.wanted } else { &[WHOLE] };
                    let ranges = wanted.iter().map(|range| range.start..range.end.min(size));
                    let ranges = ranges.collect();
                    return Ok(Opened { identity, ranges, answer, permit });
                }
                Err(failure) => {
                    drop(permit);
                    // An empty shard has no byte 0, and ranges are of no use if the server does not know the size.
                    want = match (failure.status, want) {
                        (Some(PARTIAL_CONTENT | 416), Want::Range(..)) => Want::Whole,
                        _ => first,
                    };
                    sleep(self.pause(attempts, failure, 0)?).await;
                }
            }
        }
    }

    /// Fetches the rest. [`Verdict::Changed`]: start again.
    pub async fn finish(&self, opened: Opened<'store>, sink: &PartialFile) -> Result<(), Failure> {
        let identity = opened.identity.clone();
        let parts = opened.parts(self.limits.range_bytes);
        let mut first = Some(opened);
        let jobs = parts.map(|part| self.part(part, first.take(), &identity, sink));
        stream::iter(jobs).buffer_unordered(self.limits.ranges).try_collect::<()>().await
    }

    async fn part(
        &self,
        part: Part,
        mut opened: Option<Opened<'store>>,
        identity: &Identity,
        sink: &PartialFile,
    ) -> Result<(), Failure> {
        let mut attempts = Attempts::new(self.limits.retries);
        let mut at = part.start;
        loop {
            let before = at;
            let Err(failure) = self.stream(part, &mut at, opened.take(), identity, sink).await
            else {
                return Ok(());
            };
            if failure.verdict == Verdict::Changed {
                return Err(failure);
            }
            sleep(self.pause(&mut attempts, failure, at - before)?).await;
        }
    }

    /// Sends one request from `at` on. `at` advances with every byte written.
    async fn stream(
        &self,
        part: Part,
        at: &mut u64,
        opened: Option<Opened<'store>>,
        identity: &Identity,
        sink: &PartialFile,
    ) -> Result<(), Failure> {
        let (mut answer, _permit) = match opened {
            Some(opened) => (opened.answer, opened.permit),
            None => {
                let permit = self.permit().await?;
                let want = match part.end {
                    Some(end) if part.ranged => Want::Range(*at, end),
                    _ => Want::Whole,
                };
                (self.ask(want, Some(identity)).await?, permit)
            }
        };
        let (mut position, mut pace) = (answer.start, Pace::new());
        while part.end.is_none_or(|end| *at < end) {
            let Some(piece) = self.in_time(answer.body.next()).await? else {
                break;
            };
            let piece = piece?;
            pace.arrived(piece.len(), &self.limits)?;
            // A server without ranges starts from the beginning: skip the bytes we have.
            let had = (*at - position).min(piece.len() as u64);
            position += piece.len() as u64;
            let fresh = &piece[had as usize..];
            let room = part.end.map_or(u64::MAX, |end| end - *at);
            let fresh = &fresh[..fresh.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            if !fresh.is_empty() {
                // A server that reported no size may send without end.
                self.limits.check_size(*at + fresh.len() as u64)?;
                sink.write(*at, fresh).map_err(write_failure)?;
                *at += fresh.len() as u64;
            }
        }
        match part.end {
            Some(end) if *at < end => {
                Err(Failure::again(format!("the connection ended at byte {at} of {end}")))
            }
            None if position < *at => Err(Failure::changed("it is shorter than before")),
            _ => Ok(()),
        }
    }

    /// The pause before the next attempt. A pause that the server asks for is logged.
    fn pause(
        &self,
        attempts: &mut Attempts,
        failure: Failure,
        new_bytes: u64,
    ) -> Result<Duration, Failure> {
        let (asked, what) = (failure.pause, failure.what.clone());
        let pause = attempts.failed(failure, new_bytes)?;
        if let Some(asked) = asked.filter(|asked| !asked.is_zero()) {
            let (address, what) = (Printable(self.address), Printable(&what));
            self.notes.add(format!(
                "shard {address}: {what}, and asks for a pause of {asked:?}: trying again in {pause:?}"
            ));
        }
        Ok(pause)
    }

    async fn permit(&self) -> Result<SemaphorePermit<'store>, Failure> {
        let permit = self.connections.acquire().await;
        permit.map_err(|_| Failure::terminal("the loader is closed"))
    }

    async fn ask(&self, want: Want, known: Option<&Identity>) -> Result<Answer, Failure> {
        self.in_time(self.source.get(want, known)).await?
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        in_time(self.limits.timeout, work).await
    }
}
