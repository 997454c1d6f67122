//! Fetches one shard into a local, uncompressed file.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::time::sleep;

use super::cache::{Claim, Found};
use super::fetcher::{Client, Fetched, Fetcher};
use super::limits::Limits;
use super::meter::Meter;
use super::retry::{Attempts, Failure, Verdict, write_failure};
use super::transfer::{Opened, Transfer, WHOLE, num_bytes};
use super::{decompress, pipe};
use crate::error::FetchError;
use crate::os::write_all_at;
use crate::shards::{BLOCK, Compression, Location, Stamp};

/// Bytes to unpack at once, and at most lost before damaged data.
const UNPACK_BYTES: usize = 16 * 1024;

enum Cached<'store> {
    Whole(File),
    /// Nothing, so the shard must be downloaded, and kept if this process could claim its place.
    Missing(Box<Opened<'store>>, Option<Claim>),
}

impl Fetcher {
    /// Setting `cancelled` aborts.
    pub fn fetch(
        &self,
        location: &Location,
        cancelled: &AtomicBool,
    ) -> Result<Fetched, FetchError> {
        let meter = Arc::new(Meter::default());
        let work = self.client.download(location, &[WHOLE], &meter);
        let fetched = self.wait(work, location, cancelled);
        // A thread may still be unpacking.
        meter.call_off();
        fetched
    }
}

impl Client {
    /// Fetches a shard, or if possible only the `wanted` ranges, into a sparse file. `meter` shows the disk space.
    pub async fn download(
        &self,
        location: &Location,
        wanted: &[Range<u64>],
        meter: &Arc<Meter>,
    ) -> Result<Fetched, Failure> {
        let compression = location.compression();
        let fetched = match location {
            Location::File(path) => self.open_file(path, compression, meter).await,
            Location::Url(url) => self.download_url(url, wanted, compression, meter).await,
            Location::Pipe(command) => pipe::download(self, command, meter).await,
        };
        fetched.map_err(|failure| failure.at("the folder (store.cache_dir)", &self.folder))
    }

    async fn open_file(
        &self,
        path: &Path,
        compression: Option<Compression>,
        meter: &Arc<Meter>,
    ) -> Result<Fetched, Failure> {
        let (mut file, stamp) = Stamp::open(path)
            .map_err(|error| Failure::terminal(format!("cannot open: {error}")))?;
        if let Some(compression) = compression {
            file = self.unpack(file, compression, self.file()?, meter).await?;
        }
        Ok(Fetched { file, stamp })
    }

    async fn download_url(
        &self,
        url: &str,
        wanted: &[Range<u64>],
        compression: Option<Compression>,
        meter: &Arc<Meter>,
    ) -> Result<Fetched, Failure> {
        let source = self.source(url)?;
        let transfer = self.transfer(&source, wanted);
        let mut attempts = Attempts::new(self.limits.retries);
        loop {
            let once = self.download_once(url, transfer, compression, meter, &mut attempts);
            match once.await {
                Err(failure) if failure.verdict == Verdict::Changed => {
                    sleep(attempts.failed(failure, 0)?).await;
                }
                Err(mut failure) => {
                    failure.attempts = failure.attempts.max(1);
                    return Err(failure);
                }
                fetched => return fetched,
            }
        }
    }

    async fn download_once(
        &self,
        url: &str,
        transfer: Transfer<'_>,
        compression: Option<Compression>,
        meter: &Arc<Meter>,
        attempts: &mut Attempts,
    ) -> Result<Fetched, Failure> {
        let opened = transfer.open(attempts).await?;
        self.limits.check_size(opened.identity.size.unwrap_or(0))?;
        let mut identity = opened.identity.clone();
        let (opened, claim) = match self.look_in_cache(url, transfer, opened, attempts).await? {
            Cached::Whole(file) => {
                meter.settle(file.metadata().map_err(write_failure)?.len());
                return Ok(Fetched::of(file, &identity));
            }
            Cached::Missing(opened, claim) => (*opened, claim),
        };
        let expected = identity.size.map(|_| num_bytes(&opened.ranges));
        meter.begin(expected);
        let file = match &claim {
            Some(claim) => claim.file.try_clone().map_err(write_failure)?,
            None => self.file()?,
        };
        let arriving = match compression {
            None => file.try_clone().map_err(write_failure)?,
            Some(_) => self.file()?,
        };
        transfer.finish(opened, &arriving, meter).await?;
        match identity.size {
            // The last bytes may not be wanted.
            Some(size) => arriving.set_len(size).map_err(write_failure)?,
            None => identity.size = Some(arriving.metadata().map_err(write_failure)?.len()),
        }
        let mut file = match compression {
            None => file,
            Some(compression) => self.unpack(arriving, compression, file, meter).await?,
        };
        if compression.is_some() {
            meter.settle(file.metadata().map_err(write_failure)?.len());
        }
        if let Some(claim) = claim {
            let kept = tokio::task::spawn_blocking(|| claim.keep()).await;
            let kept = kept.map_err(io::Error::other).flatten();
            file = kept.map_err(write_failure)?;
        }
        Ok(Fetched::of(file, &identity))
    }

    /// Looks for an opened shard in the cache. Claims the place of a missing one, or waits for the process that has it.
    async fn look_in_cache<'store>(
        &self,
        url: &str,
        transfer: Transfer<'store>,
        mut opened: Opened<'store>,
        attempts: &mut Attempts,
    ) -> Result<Cached<'store>, Failure> {
        let identity = opened.identity.clone();
        // Without a size from the server, a broken connection looks like the end of the shard, and an unpacked file has
        // no stamp. Such a shard is not kept.
        let cache = self.cache.as_ref().filter(|_| identity.size.is_some());
        let Some((cache, path)) =
            cache.and_then(|cache| Some((cache, cache.path(url, &identity)?)))
        else {
            return Ok(Cached::Missing(Box::new(opened), None));
        };
        let mut found = cache.look(&path).map_err(write_failure)?;
        if matches!(found, Found::Busy) {
            // Free the connection for other downloads.
            drop(opened);
            found = cache.wait(&path).await.map_err(write_failure)?;
            if let Found::Whole(file) = found {
                return Ok(Cached::Whole(file));
            }
            opened = transfer.open(attempts).await?;
            if opened.identity != identity {
                return Err(Failure::changed("it changes while it is read"));
            }
        }
        Ok(match found {
            Found::Whole(file) => Cached::Whole(file),
            Found::Mine(claim) => Cached::Missing(Box::new(opened), Some(claim)),
            Found::Busy => Cached::Missing(Box::new(opened), None),
        })
    }

    async fn unpack(
        &self,
        mut packed: File,
        compression: Compression,
        into: File,
        meter: &Arc<Meter>,
    ) -> Result<File, Failure> {
        packed.rewind().map_err(write_failure)?;
        let (meter, limits) = (Arc::clone(meter), self.limits);
        let work = move || unpack(packed, compression, into, &meter, limits);
        let joined = tokio::task::spawn_blocking(work).await;
        joined.map_err(|error| Failure::terminal(format!("its unpacking ended: {error}")))?
    }
}

fn unpack(
    packed: impl Read,
    compression: Compression,
    mut file: File,
    meter: &Meter,
    limits: Limits,
) -> Result<File, Failure> {
    let failed = |error: io::Error| Failure::terminal(format!("cannot be decompressed: {error}"));
    let mut reader = decompress::reader(packed, compression).map_err(failed)?;
    let mut piece = vec![0; UNPACK_BYTES];
    let mut size = 0u64;
    loop {
        if meter.is_called_off() {
            return Err(Failure::terminal("the loader is closed"));
        }
        let got = match reader.read(&mut piece) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Data before the damage are used, as of a damaged plain shard.
            Err(error) if size > 0 && error.raw_os_error().is_none() => {
                damaged_at(&file, size).map_err(write_failure)?;
                0
            }
            Err(error) => return Err(failed(error)),
        };
        if got == 0 {
            return Ok(file);
        }
        size += got as u64;
        limits.check_size(size)?;
        file.write_all(&piece[..got]).map_err(write_failure)?;
        // Until all is unpacked, both files are on disk.
        meter.add(got as u64);
    }
}

/// Ends the archive one byte after its last whole block, so that it never looks complete: neither at the end of a member nor in
/// its padding.
fn damaged_at(file: &File, size: u64) -> io::Result<()> {
    let end = size / BLOCK * BLOCK;
    file.set_len(end)?;
    write_all_at(file, b"?", end)
}
