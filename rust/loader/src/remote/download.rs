//! Fetches one shard into a local, uncompressed file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::time::sleep;

use super::cache::Found;
use super::partial_file::{Meter, PartialFile, PartialFileReader};
use super::ranges::{Failed, Limits, Opened, Transfer};
use super::retry::{Attempts, Failure, LONGEST_PAUSE, Verdict, write_failure};
use super::store::{Fetched, Inner, Store, cancelled_error};
use super::{decompress, pipe};
use crate::error::FetchError;
use crate::os::write_all_at;
use crate::shards::{BLOCK, Compression, Location, Stamp, shown};

/// Bytes to unpack at once. At most this many bytes before damaged data are lost with it.
const UNPACK_BYTES: usize = 16 * 1024;

impl Store {
    /// Fetches a shard and waits for it. Setting `cancelled` aborts.
    ///
    /// # Errors
    /// It cannot be fetched, retries included.
    pub fn fetch(
        &self,
        location: &Location,
        cancelled: &AtomicBool,
    ) -> Result<Fetched, FetchError> {
        let meter = Arc::new(Meter::default());
        let work = Box::pin(self.inner.download(location, &meter));
        self.wait(work, cancelled).unwrap_or_else(|| {
            meter.call_off();
            Err(cancelled_error(&location.to_string()))
        })
    }
}

impl Inner {
    /// Fetches a shard. Meanwhile `meter` shows the disk space it uses.
    pub async fn download(
        &self,
        location: &Location,
        meter: &Arc<Meter>,
    ) -> Result<Fetched, FetchError> {
        let mut brought = match location {
            Location::File(_) => self.open_file(location, meter).await,
            Location::Url(url) => self.download_url(url, location.compression(), meter).await,
            Location::Pipe(command) => pipe::download(self, command, meter).await,
        };
        if let Err(error) = &mut brought {
            error.name_place("the folder (data.store.cache_dir)", &self.folder);
        }
        brought
    }

    async fn open_file(
        &self,
        location: &Location,
        meter: &Arc<Meter>,
    ) -> Result<Fetched, FetchError> {
        let failed = |failure: Failure| failure.into_error(&location.to_string(), 0);
        let Location::File(path) = location else {
            return Err(failed(Failure::terminal("it is no file")));
        };
        let opened = File::open(path).and_then(|file| {
            let stamp = Stamp::of_file(&file.metadata()?);
            Ok((file, stamp))
        });
        let (file, stamp) = opened.map_err(|error| {
            let mut failure = Failure::terminal(format!("cannot open: {error}"));
            if error.kind() == io::ErrorKind::NotFound {
                failure.verdict = Verdict::Missing;
            }
            failed(failure)
        })?;
        let file = match location.compression() {
            Some(compression) => {
                let into = self.file().map_err(failed)?;
                let unpacked = self.unpack(file, compression, into, meter).await;
                unpacked.map_err(failed)?
            }
            None => file,
        };
        Ok(Fetched { file, stamp })
    }

    async fn download_url(
        &self,
        url: &str,
        compression: Option<Compression>,
        meter: &Arc<Meter>,
    ) -> Result<Fetched, FetchError> {
        let (source, address) = (self.source(url)?, shown(url));
        let transfer = Transfer {
            source: &source,
            connections: &self.connections,
            limits: self.limits,
            address: &address,
            notes: &self.notes,
        };
        let mut attempts = Attempts::new(self.config.retries);
        loop {
            let (failure, made) = match self
                .download_once(url, transfer, compression, meter, &mut attempts)
                .await
            {
                Ok(fetched) => return Ok(fetched),
                Err(failed) => failed,
            };
            if failure.verdict != Verdict::Changed {
                return Err(failure.into_error(&address, made));
            }
            let pause = attempts
                .failed(failure, 0)
                .map_err(|failure| failure.into_error(&address, attempts.made))?;
            sleep(pause).await;
        }
    }

    async fn download_once(
        &self,
        url: &str,
        transfer: Transfer<'_>,
        compression: Option<Compression>,
        meter: &Arc<Meter>,
        attempts: &mut Attempts,
    ) -> Result<Fetched, Failed> {
        let once = |failure| (failure, 1);
        let mut opened = transfer.open(attempts).await?;
        let mut identity = opened.identity.clone();
        self.limits
            .check_size(identity.size.unwrap_or(0))
            .map_err(once)?;
        let mut kept = self.cache.as_ref().and_then(|cache| {
            let path = cache.path(url, &identity)?;
            Some((cache, path))
        });
        let mut claim = None;
        if let Some((cache, path)) = &kept {
            let unusable = |error| once(write_failure(&error));
            let found = match cache.look(path).map_err(unusable)? {
                Some(found) => Some(found),
                None => {
                    // Free the connection for other downloads.
                    drop(opened);
                    // The other process may be pausing before a retry.
                    let patience = self.limits.timeout + LONGEST_PAUSE;
                    let found = cache.wait(path, patience).await.map_err(unusable)?;
                    if let Some(Found::Whole(file)) = found {
                        return Ok(Fetched::of(file, &identity));
                    }
                    opened = transfer.open(attempts).await?;
                    if opened.identity != identity {
                        return Err(once(Failure::changed("it changes while it is read")));
                    }
                    found
                }
            };
            match found {
                Some(Found::Whole(file)) => return Ok(Fetched::of(file, &identity)),
                Some(Found::Mine(mine)) => claim = Some(mine),
                None => kept = None,
            }
        }
        meter.begin(identity.size, compression.is_some());
        let file = match &claim {
            Some(claim) => claim
                .file
                .try_clone()
                .map_err(|error| once(write_failure(&error)))?,
            None => self.file().map_err(once)?,
        };
        let (arriving, unpacked) = match compression {
            None => (file, None),
            Some(compression) => (self.file().map_err(once)?, Some((compression, file))),
        };
        let sink = Arc::new(PartialFile::new(arriving, meter));
        let mut file = self
            .receive(transfer, opened, &sink, unpacked, meter)
            .await?;
        let arrived = sink.file.metadata().map(|metadata| metadata.len());
        let arrived = arrived.map_err(|error| once(write_failure(&error)))?;
        if identity.size.is_some_and(|size| size != arrived) {
            return Err(once(Failure::changed(format!(
                "{arrived} bytes have come, and the server says another size"
            ))));
        }
        identity.size = Some(arrived);
        if let (Some(claim), Some((cache, path))) = (claim, kept) {
            let cache = cache.clone();
            let keeping = tokio::task::spawn_blocking(move || cache.keep(claim, &path)).await;
            let kept = keeping.map_err(io::Error::other).and_then(|kept| kept);
            file = kept.map_err(|error| once(write_failure(&error)))?;
        }
        Ok(Fetched::of(file, &identity))
    }

    /// Receives the shard, unpacks it into a second file if it is compressed, and returns the plain file.
    async fn receive(
        &self,
        transfer: Transfer<'_>,
        opened: Opened<'_>,
        sink: &Arc<PartialFile>,
        unpacked: Option<(Compression, File)>,
        meter: &Arc<Meter>,
    ) -> Result<File, Failed> {
        // The reader of the partial file must notice if this future is dropped.
        let ending = Ending(Arc::clone(sink));
        let Some((compression, into)) = unpacked else {
            transfer.finish(opened, sink).await?;
            return sink
                .file
                .try_clone()
                .map_err(|error| (write_failure(&error), 1));
        };
        let following = PartialFileReader::new(Arc::clone(sink));
        let unpacking = async {
            let unpacked = self.unpack(following, compression, into, meter).await;
            unpacked.map_err(|failure| (failure, 1))
        };
        let arriving = async {
            let result = transfer.finish(opened, sink).await;
            ending.0.end(result.is_ok());
            result
        };
        let ((), unpacked) = futures_util::future::try_join(arriving, unpacking).await?;
        Ok(unpacked)
    }

    /// Unpacks a stream into a file, on a thread that may block.
    async fn unpack(
        &self,
        packed: impl Read + Send + 'static,
        compression: Compression,
        into: File,
        meter: &Arc<Meter>,
    ) -> Result<File, Failure> {
        let _permit = self.may_wait().await?;
        let (meter, limits) = (Arc::clone(meter), self.limits);
        let work = move || unpack(packed, compression, into, &meter, limits);
        let joined = tokio::task::spawn_blocking(work).await;
        joined.map_err(|error| Failure::terminal(format!("its unpacking ended: {error}")))?
    }
}

struct Ending(Arc<PartialFile>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(false);
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
            // Data before the damage are used, as with a damaged plain shard.
            Err(error) if size > 0 && error.raw_os_error().is_none() => {
                damaged_at(&file, size).map_err(|error| write_failure(&error))?;
                0
            }
            Err(error) => return Err(failed(error)),
        };
        if got == 0 {
            return Ok(file);
        }
        size += got as u64;
        limits.check_size(size)?;
        file.write_all(&piece[..got])
            .map_err(|error| write_failure(&error))?;
        // Until the shard is completely unpacked, both files are on disk.
        meter.add(got as u64);
    }
}

/// Makes the archive end one byte after its last whole block, so that it never looks complete: neither at the end of a member
/// nor in its padding.
fn damaged_at(file: &File, size: u64) -> io::Result<()> {
    let end = size / BLOCK * BLOCK;
    file.set_len(end)?;
    write_all_at(file, b"?", end)
}
