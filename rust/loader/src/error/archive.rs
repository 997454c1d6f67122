//! What is wrong with an archive or with an index file.

/// What is wrong with an archive, from its headers alone.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The operating system could not read.
    #[error("cannot read: {0}")]
    Read(#[from] std::io::Error),
    /// The file has no bytes.
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
    /// The checksum of a header does not fit its bytes.
    #[error("damaged header: the checksum is {found}, the header says {expected}")]
    Checksum {
        /// Sum over the header's bytes.
        found: u64,
        /// Sum written in the header.
        expected: u64,
    },
    /// A number, name or extension of a header cannot be read.
    #[error("damaged header: {0}")]
    Header(&'static str),
    /// Sparse members would give wrong bytes.
    #[error("member {0:?} is sparse, which is not supported; write the shard without sparse files")]
    Sparse(String),
}

/// What is wrong with an index file.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The operating system could not read or write.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It begins otherwise.
    #[error("it is no index of shards")]
    NotAnIndex,
    /// It was written by another version.
    #[error("it has format {0}, and this version of prolip reads format 1: make it again")]
    Version(u32),
    /// Its bytes are not what was written.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
}
