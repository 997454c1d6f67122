//! What is wrong with an archive or with an index file.

#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("cannot read: {0}")]
    Read(#[from] std::io::Error),
    #[error("the file is empty, not an archive")]
    Empty,
    #[error("{0}; the file may not be a tar archive")]
    NotAnArchive(Box<TarError>),
    #[error(
        "the archive is compressed ({0}): decompress it, or let its name end in .gz, .tgz or .zst as it is"
    )]
    Compressed(&'static str),
    #[error("the archive is truncated: {what} reaches beyond the file's {size} bytes")]
    Truncated { what: String, size: u64 },
    /// After a member, without the block of zeros that ends an archive.
    #[error(
        "there is nothing at byte {0}, not even the zeros that end an archive: the file may be cut there \
         (store.require_archive_end = false accepts such files)"
    )]
    NoEnd(u64),
    #[error("damaged header: the checksum is {found}, the header says {expected}")]
    Checksum { found: u64, expected: u64 },
    #[error("damaged header: {0}")]
    Header(&'static str),
    #[error("member {0:?} is sparse, which is not supported; write the shard without sparse files")]
    Sparse(String),
}

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("not an index of shards")]
    NotAnIndex,
    #[error("it has format {0}, but this version of prolip reads format 1: index the shards again")]
    Version(u32),
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
}
