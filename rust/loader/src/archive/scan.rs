//! Reads the headers of a shard to find its samples.

use std::fs::File;

use super::grouping::Grouper;
use super::tar::{Damage, FileSource, Scratch, Source, TarReader};
use crate::error::TarError;
use crate::shards::{BLOCK, Location, Regions};

/// What reading a shard's headers found.
#[derive(Debug)]
pub struct Scan {
    /// The samples. Where the shard is damaged, the last one is the damage: reading it gives the error.
    pub regions: Regions,
    /// What is wrong with the shard from there on.
    pub damage: Option<Damage>,
}

impl Scan {
    /// A sentence about a damaged shard.
    #[must_use]
    pub fn note(&self, location: &Location) -> Option<String> {
        let damage = self.damage.as_ref()?;
        Some(format!(
            "shard {location}, byte {}: {}; the samples before are used",
            damage.at, damage.error
        ))
    }
}

/// Finds the samples of a shard.
///
/// Where a header is damaged or the shard ends too early, the samples before stand, and one more stands for the rest.
///
/// # Errors
/// The first header cannot be read, so this is no archive; a member is sparse; or there are more than 2 TiB.
pub fn scan(source: impl Source) -> Result<Scan, Damage> {
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
            Ok(None) => break,
            Err(error) if error.header == 0 || !is_damage(&error.error) => return Err(error),
            Err(error) => {
                starts.push(block_of(error.header)?);
                damage = Some(error);
                break;
            }
        }
    }
    // The damage has a region of its own, at least the header that is wrong.
    let end = reader.position() + if damage.is_some() { BLOCK } else { 0 };
    starts.push(block_of(end)?);
    Ok(Scan {
        regions: Regions::from_rising(starts),
        damage,
    })
}

/// The regions of a shard in a file. Where the shard is damaged, the last region is the damage.
///
/// # Errors
/// As [`scan`].
pub fn scan_file(file: &File) -> Result<Regions, TarError> {
    let scan = scan(FileSource::new(file)?).map_err(|damage| damage.error)?;
    Ok(scan.regions)
}

/// Whether an error lies in the archive's bytes: not in the disk, and not in what is understood here.
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
