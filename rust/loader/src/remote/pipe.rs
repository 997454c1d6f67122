//! Shards from the output of a command.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::fetcher::{Client, Fetched};
use super::limits::Limits;
use super::meter::Meter;
use super::retry::{Attempts, Failure, write_failure};
use crate::os;
use crate::shards::{Identity, without_secrets};

pub(super) const NOT_ALLOWED: &str = "commands are run with store.allow_pipe = true only";
/// The capacity of a pipe.
const PIECE_BYTES: usize = 64 * 1024;
/// The end of a command's stderr. Longer than an address: secrets are removed from whole addresses only.
const COMPLAINT_BYTES: u64 = 16 * 1024;
/// Last characters that an error quotes.
const QUOTED: usize = 200;

struct KillOnDrop(Option<os::Group>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(group) = &self.0 {
            group.kill();
        }
    }
}

pub(super) async fn download(
    client: &Client,
    command: &str,
    meter: &Arc<Meter>,
) -> Result<Fetched, Failure> {
    if !client.config.allow_pipe {
        return Err(Failure::terminal(NOT_ALLOWED));
    }
    let mut attempts = Attempts::new(client.limits.retries);
    loop {
        match run(client, command, meter).await {
            Err(failure) => sleep(attempts.failed(failure, 0)?).await,
            fetched => return fetched,
        }
    }
}

async fn run(client: &Client, command: &str, meter: &Arc<Meter>) -> Result<Fetched, Failure> {
    let _permit = client.may_wait().await?;
    let (file, mut complaint) = (client.file()?, client.file()?);
    let cannot = |error: std::io::Error| Failure::terminal(format!("cannot be run: {error}"));
    let mut child = os::shell(command)
        .map_err(cannot)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(complaint.try_clone().map_err(cannot)?))
        .spawn()
        .map_err(cannot)?;
    let mut group = KillOnDrop(os::Group::of(&child));
    let output = child.stdout.take();
    let output = output.ok_or_else(|| Failure::terminal("its output cannot be read"))?;
    meter.begin(None);
    let (task, counted, limits) = (Arc::clone(meter), Arc::clone(meter), client.limits);
    let mut copying = tokio::task::spawn_blocking(move || copy(child, output, file, &task, limits));
    let copied = finished(client, &mut copying, &counted).await?;
    // It is reaped, so its id may be reused.
    group.0 = None;
    let (file, status) = copied?;
    if status.success() {
        let identity = Identity {
            size: file.metadata().ok().map(|metadata| metadata.len()),
            ..Identity::default()
        };
        return Ok(Fetched::of(file, &identity));
    }
    let mut said = Vec::new();
    let end = complaint.seek(SeekFrom::End(0)).unwrap_or(0);
    let _ = complaint.seek(SeekFrom::Start(end.saturating_sub(COMPLAINT_BYTES)));
    let _ = complaint.read_to_end(&mut said);
    let said = without_secrets(String::from_utf8_lossy(&said).trim());
    let quoted = said.char_indices().rev().nth(QUOTED - 1);
    let quoted = &said[quoted.map_or(0, |(begin, _)| begin)..];
    let what = format!("the command ends with {status}: {quoted}");
    // Exit codes of a shell that cannot run the command.
    Err(match status.code() {
        Some(126 | 127) => Failure::terminal(what),
        _ => Failure::again(what),
    })
}

type Copied = Result<(File, ExitStatus), Failure>;

async fn finished(
    client: &Client,
    copying: &mut JoinHandle<Copied>,
    meter: &Meter,
) -> Result<Copied, Failure> {
    let limit = client.limits.timeout;
    loop {
        let before = meter.written();
        match timeout(limit, &mut *copying).await {
            Ok(joined) => {
                return joined
                    .map_err(|error| Failure::terminal(format!("its thread ended: {error}")));
            }
            Err(_) if meter.written() > before => {
                client.limits.check_rate(meter.written() - before, limit)?;
            }
            Err(_) => return Err(Failure::again(format!("no byte for {limit:?}"))),
        }
    }
}

fn copy(
    mut child: Child,
    mut output: ChildStdout,
    mut file: File,
    meter: &Meter,
    limits: Limits,
) -> Copied {
    let copied = copy_output(&mut output, &mut file, meter, limits);
    if copied.is_err() {
        drop(KillOnDrop(os::Group::of(&child)));
    }
    let status = child.wait().map_err(broke)?;
    copied.map(|()| (file, status))
}

fn copy_output(
    output: &mut ChildStdout,
    file: &mut File,
    meter: &Meter,
    limits: Limits,
) -> Result<(), Failure> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut size = 0u64;
    loop {
        let got = output.read(&mut piece).map_err(broke)?;
        if got == 0 {
            return Ok(());
        }
        size += got as u64;
        limits.check_size(size)?;
        file.write_all(&piece[..got]).map_err(write_failure)?;
        meter.add(got as u64);
    }
}

fn broke(error: std::io::Error) -> Failure {
    Failure::again(format!("its output broke: {error}"))
}
