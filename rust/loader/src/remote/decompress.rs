//! Streaming decompression of gzip and zstd.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use crate::shards::Compression;

/// Reads concatenated streams as one, as `gunzip` and `zstd -d` do.
pub fn reader<'packed>(
    packed: impl Read + 'packed,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'packed>> {
    Ok(match compression {
        Compression::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Compression::Zstd => Box::new(zstd::Decoder::new(packed)?),
    })
}
