//! Reads the headers of a shard to find its samples.

use std::fs::File;

use super::grouping::Grouper;
use super::tar::{Damage, FileSource, Scratch, Source, TarReader};
use crate::error::TarError;
use crate::shards::{BLOCK, Location, Regions};

#[derive(Debug)]
pub struct Scan {
    /// If the shard is damaged, the last region is the damage: reading it returns the error.
    pub regions: Regions,
    pub damage: Option<Damage>,
}

impl Scan {
    pub fn note(&self, location: &Location) -> Option<String> {
        let damage = self.damage.as_ref()?;
        Some(format!(
            "{location}: byte {}: {}; the samples before are used",
            damage.at, damage.error
        ))
    }
}

/// Finds the samples of a shard.
///
/// If a header is damaged or the shard is truncated, the samples before it are used, and one more region stands for
/// the rest. With `require_end`, a shard without a block of zeros at its end counts as truncated: a cut between two members leaves
/// no other trace.
pub fn scan(source: impl Source, require_end: bool) -> Result<Scan, Damage> {
    let mut scratch = Scratch::default();
    let mut reader = TarReader::new(source, &mut scratch, 0);
    let (mut grouper, mut starts, mut damage) = (Grouper::default(), Vec::new(), None);
    loop {
        match reader.next_member() {
            Ok(Some(member)) => {
                if grouper.begins(member.name) {
                    starts.push(block_of(member.header)?);
                }
            }
            Ok(None) => {
                if require_end && !reader.has_end() {
                    let end = reader.position();
                    starts.push(block_of(end)?);
                    damage = Some(Damage { header: end, at: end, error: TarError::NoEnd(end) });
                }
                break;
            }
            Err(error) if error.header == 0 || !is_damage(&error.error) => return Err(error),
            Err(error) => {
                starts.push(block_of(error.header)?);
                damage = Some(error);
                break;
            }
        }
    }
    // The damage gets a region of its own: at least the damaged header.
    let end = reader.position() + if damage.is_some() { BLOCK } else { 0 };
    starts.push(block_of(end)?);
    Ok(Scan { regions: Regions::new(starts), damage })
}

/// As [`scan`], of a file.
pub fn scan_file(file: &File, require_end: bool) -> Result<Regions, TarError> {
    let scan = scan(FileSource::new(file)?, require_end).map_err(|damage| damage.error)?;
    Ok(scan.regions)
}

fn is_damage(error: &TarError) -> bool {
    match error {
        TarError::Read(error) => error.raw_os_error().is_none(),
        TarError::Sparse(_) => false,
        _ => true,
    }
}

fn block_of(offset: u64) -> Result<u32, Damage> {
    u32::try_from(offset / BLOCK).map_err(|_| Damage {
        header: offset,
        at: offset,
        error: TarError::Header("an archive may have at most 2 TiB"),
    })
}
