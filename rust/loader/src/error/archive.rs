//! What is wrong with an archive or with an index file.

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// A read failed.
    #[error("cannot read: {0}")]
    Read(#[from] std::io::Error),
    /// The file is empty.
    #[error("the file is empty, not an archive")]
    Empty,
    /// The first header is damaged: the file may be of another kind.
    #[error("{0}; the file may not be a tar archive")]
    NotAnArchive(Box<TarError>),
    /// The file is compressed.
    #[error(
        "the archive is compressed ({0}): decompress it, or let its name end in .gz, .tgz or .zst as it is"
    )]
    Compressed(&'static str),
    /// The file ends inside a header or a member's data.
    #[error("the archive is truncated: {what} reaches beyond the file's {size} bytes")]
    Truncated {
        /// What is incomplete.
        what: String,
        /// Size of the file in bytes.
        size: u64,
    },
    /// The file ends after a member, without the block of zeros that ends an archive.
    #[error(
        "there is nothing at byte {0}, not even the zeros that end an archive: the file may be cut there \
         (store.require_archive_end = false accepts such files)"
    )]
    NoEnd(u64),
    /// The checksum of a header does not match its bytes.
    #[error("damaged header: the checksum is {found}, the header says {expected}")]
    Checksum {
        /// The sum of the header's bytes.
        found: u64,
        /// The sum stored in the header.
        expected: u64,
    },
    /// A number, name or extension in a header is invalid.
    #[error("damaged header: {0}")]
    Header(&'static str),
    /// A sparse member, whose bytes would be wrong.
    #[error("member {0:?} is sparse, which is not supported; write the shard without sparse files")]
    Sparse(String),
}

/// What is wrong with an index file.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A read or write failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The disk is full, a quota is used up, or a limit on the size of a file is reached. With the number of free bytes.
    #[error("{0}; {1} bytes are free")]
    Full(std::io::Error, u64),
    /// The file does not begin like an index.
    #[error("not an index of shards")]
    NotAnIndex,
    /// The file has another format version.
    #[error("it has format {0}, but this version of prolip reads format 1: index the shards again")]
    Version(u32),
    /// The file's bytes have changed.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
}
