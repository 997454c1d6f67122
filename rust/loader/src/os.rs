//! What operating systems do differently with files and processes. No other file asks which one this is.
//!
//! A file that is read or written by position must not also be read in order: on Windows that moves its position.

use std::fs::File;
use std::io;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

#[cfg(target_os = "linux")]
const LARGE_PAGE: usize = 2 << 20;

/// Reads the bytes at `offset` until `into` is full or the file ends. Returns their number.
pub(crate) fn read_up_to(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match read_at(file, &mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

pub(crate) fn read_exact_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    if read_up_to(file, into, offset)? < into.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match write_at(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(put) => {
                bytes = &bytes[put..];
                offset += put as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Large pages: the first writes then cause a 512th of the page faults.
#[cfg(target_os = "linux")]
pub(crate) fn prefer_large_pages(memory: &mut [u8]) {
    use rustix::mm::{Advice, madvise};
    let before = memory.as_ptr().align_offset(LARGE_PAGE);
    if let Some(aligned) = memory.get_mut(before..) {
        // SAFETY: the range is one slice. This advice does not change what the memory holds.
        let _ =
            unsafe { madvise(aligned.as_mut_ptr().cast(), aligned.len(), Advice::LinuxHugepage) };
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn prefer_large_pages(_memory: &mut [u8]) {}

#[cfg(unix)]
mod unix {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::{Child, Command};

    use rustix::fs::OFlags;
    use rustix::process::{Pid, Signal, kill_process_group};

    const WRITABLE_BY_ALL: u32 = 0o002;

    /// Some of the bytes; none at the end.
    pub(crate) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(into, offset)
    }

    /// Some of the bytes.
    pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
        let opened = file.metadata()?;
        Ok(std::fs::metadata(path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())))
    }

    pub(crate) fn no_links() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
        options
    }

    pub(crate) fn is_open_to_all(folder: &Metadata) -> bool {
        folder.mode() & WRITABLE_BY_ALL != 0
    }

    pub(crate) fn private_folders() -> DirBuilder {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder
    }

    /// Gives a temporary file the usual permissions of a new file. It is private by default.
    pub(crate) fn usual_permissions<'a, 'name>(
        builder: &'a mut tempfile::Builder<'name, 'name>,
    ) -> &'a mut tempfile::Builder<'name, 'name> {
        builder.permissions(PermissionsExt::from_mode(0o666))
    }

    pub(crate) fn shell(command: &str) -> io::Result<Command> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]).process_group(0);
        Ok(shell)
    }

    /// Of a command from [`shell`].
    pub(crate) struct Group(Pid);

    impl Group {
        pub(crate) fn of(child: &Child) -> Option<Self> {
            Pid::from_raw(child.id() as i32).map(Self)
        }

        /// Kills it with its children. They may already have ended.
        pub(crate) fn kill(&self) {
            let _ = kill_process_group(self.0, Signal::KILL);
        }
    }
}

#[cfg(windows)]
mod windows {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::windows::fs::{FileExt, OpenOptionsExt};
    use std::path::Path;
    use std::process::{Child, Command};

    use same_file::Handle;

    /// `FILE_FLAG_OPEN_REPARSE_POINT`: opens a link itself.
    const OPEN_LINK_ITSELF: u32 = 0x0020_0000;

    pub(crate) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(into, offset)
    }

    pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.seek_write(bytes, offset)
    }

    pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
        let opened = Handle::from_file(file.try_clone()?)?;
        Ok(Handle::from_path(path).is_ok_and(|named| named == opened))
    }

    pub(crate) fn no_links() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.custom_flags(OPEN_LINK_ITSELF);
        options
    }

    /// Not read on Windows: a folder counts as private.
    pub(crate) fn is_open_to_all(_folder: &Metadata) -> bool {
        false
    }

    pub(crate) fn private_folders() -> DirBuilder {
        DirBuilder::new()
    }

    pub(crate) fn usual_permissions<'a, 'name>(
        builder: &'a mut tempfile::Builder<'name, 'name>,
    ) -> &'a mut tempfile::Builder<'name, 'name> {
        builder
    }

    pub(crate) fn shell(_command: &str) -> io::Result<Command> {
        let why = "pipe: needs a POSIX shell, which Windows does not have";
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }

    pub(crate) struct Group;

    impl Group {
        pub(crate) fn of(_child: &Child) -> Option<Self> {
            None
        }

        pub(crate) fn kill(&self) {}
    }
}
