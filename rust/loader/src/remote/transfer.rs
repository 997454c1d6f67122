//! Fetches a shard in parallel ranges. A broken range is resumed at its last byte.

use std::fs::File;
use std::ops::Range;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;

use super::limits::{Limits, Pace};
use super::meter::Meter;
use super::origin::Origin;
use super::request::{Answer, Want};
use super::retry::{Attempts, Failure, Verdict, write_failure};
use crate::os::write_all_at;
use crate::shards::Identity;

/// Large enough to hide the latency of a request, small enough for several ranges per shard.
pub(crate) const RANGE_BYTES: u64 = 8 << 20;
/// Samples with fewer bytes between them are fetched by one request. At 1 Gbit/s with 8 connections and 20 ms until the first byte,
/// another request takes as long as these bytes.
const GAP_BYTES: u64 = 256 << 10;
/// The range of a whole shard, whatever its size.
pub(super) const WHOLE: Range<u64> = 0..u64::MAX;
/// Joins neighbours. The whole shard, if the ranges are at least half of its `size`.
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
    /// Simultaneous ranges of this shard. Fewer than all connections, so that a slow shard doesn't block the others.
    pub max_ranges: usize,
    pub range_bytes: u64,
    pub limits: &'store Limits,
}

/// A shard after its first response: its identity is known, and the body is still unread.
pub(crate) struct Opened<'store> {
    pub identity: Identity,
    /// Everything if the server has no ranges.
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
        let first = Want::Range(start, end.min(start + self.range_bytes));
        let mut want = first;
        loop {
            let permit = self.permit().await?;
            match self.source.get(want, None).await {
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
                    // An empty shard has no byte 0.
                    want = if failure.verdict == Verdict::Changed { Want::Whole } else { first };
                    sleep(attempts.failed(failure, 0)?).await;
                }
            }
        }
    }

    /// [`Verdict::Changed`]: start again.
    pub async fn finish(
        &self,
        opened: Opened<'store>,
        file: &File,
        meter: &Meter,
    ) -> Result<(), Failure> {
        let identity = opened.identity.clone();
        let parts = opened.parts(self.range_bytes);
        let mut first = Some(opened);
        let jobs = parts.map(|part| self.part(part, first.take(), &identity, (file, meter)));
        stream::iter(jobs).buffer_unordered(self.max_ranges).try_collect::<()>().await
    }

    async fn part(
        &self,
        part: Part,
        mut opened: Option<Opened<'store>>,
        identity: &Identity,
        into: (&File, &Meter),
    ) -> Result<(), Failure> {
        let mut attempts = Attempts::new(self.limits.retries);
        let mut at = part.start;
        loop {
            let before = at;
            let Err(failure) = self.stream(part, &mut at, opened.take(), identity, into).await
            else {
                return Ok(());
            };
            if failure.verdict == Verdict::Changed {
                return Err(failure);
            }
            sleep(attempts.failed(failure, at - before)?).await;
        }
    }

    /// Sends one request. `at` advances with every byte written.
    async fn stream(
        &self,
        part: Part,
        at: &mut u64,
        opened: Option<Opened<'store>>,
        identity: &Identity,
        (file, meter): (&File, &Meter),
    ) -> Result<(), Failure> {
        let (mut answer, _permit) = match opened {
            Some(opened) => (opened.answer, opened.permit),
            None => {
                let permit = self.permit().await?;
                let want = match part.end {
                    Some(end) if part.ranged => Want::Range(*at, end),
                    _ => Want::Whole,
                };
                (self.source.get(want, Some(identity)).await?, permit)
            }
        };
        let (mut position, mut pace) = (answer.start, Pace::new());
        while part.end.is_none_or(|end| *at < end) {
            let Some(piece) = answer.body.next().await else {
                break;
            };
            let piece = piece?;
            pace.arrived(piece.len(), self.limits)?;
            // A server without ranges starts from the beginning.
            let had = (*at - position).min(piece.len() as u64);
            position += piece.len() as u64;
            let fresh = &piece[had as usize..];
            let room = part.end.map_or(u64::MAX, |end| end - *at);
            let fresh = &fresh[..fresh.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            if !fresh.is_empty() {
                // A server that reported no size may send without end.
                self.limits.check_size(*at + fresh.len() as u64)?;
                write_all_at(file, fresh, *at).map_err(write_failure)?;
                meter.add(fresh.len() as u64);
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

    async fn permit(&self) -> Result<SemaphorePermit<'store>, Failure> {
        let permit = self.connections.acquire().await;
        permit.map_err(|_| Failure::terminal("the loader is closed"))
    }
}
