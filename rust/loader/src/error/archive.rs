//! What is wrong with an archive or with an index file.

/// What is wrong with an archive, as its headers show.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading failed.
    #[error("cannot read: {0}")]
    Read(#[from] std::io::Error),
    /// The file is empty.
    #[error("the file is empty, not an archive")]
    Empty,
    /// The file is compressed.
    #[error(
        "the archive is compressed ({0}): decompress it, or let its name end in .gz, .tgz or .zst as it is"
    )]
    Compressed(&'static str),
    /// The file ends inside a header or inside a member's data.
    #[error("the archive is truncated: {what} reaches beyond the file's {size} bytes")]
    Truncated {
        /// What is incomplete.
        what: String,
        /// Bytes of the file.
        size: u64,
    },
    /// The checksum of a header is wrong.
    #[error("damaged header: the checksum is {found}, the header says {expected}")]
    Checksum {
        /// The sum of the header's bytes.
        found: u64,
        /// The sum in the header.
        expected: u64,
    },
    /// A number, name or extension in a header is invalid.
    #[error("damaged header: {0}")]
    Header(&'static str),
    /// A member is sparse, which is not supported.
    #[error("member {0:?} is sparse, which is not supported; write the shard without sparse files")]
    Sparse(String),
}

/// What is wrong with an index file.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file does not start like an index.
    #[error("it is not an index of shards")]
    NotAnIndex,
    /// Another version of prolip wrote it.
    #[error("it has format {0}, and this version of prolip reads format 1: rebuild it")]
    Version(u32),
    /// The file is damaged.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
}
