//! Compressed bytes → plain ones, as they come.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use crate::location::Compression;

/// A reader of what a compressed stream holds; several streams in a row are one, as `gunzip` and `zstd -d` have it.
///
/// # Errors
/// There is no memory for it.
pub fn reader<'packed>(
    packed: impl Read + 'packed,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'packed>> {
    Ok(match compression {
        Compression::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Compression::Zstd => Box::new(zstd::Decoder::new(packed)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn unpacked(packed: &[u8], compression: Compression) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        reader(packed, compression)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn streams_in_a_row_are_one_and_half_a_stream_is_an_error() {
        let gzip = |bytes: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        for (compression, one, two) in [
            (Compression::Gzip, gzip(b"one, "), gzip(b"two")),
            (Compression::Zstd, zstd(b"one, "), zstd(b"two")),
        ] {
            let both = [one, two].concat();
            assert_eq!(unpacked(&both, compression).unwrap(), b"one, two");
            assert!(unpacked(&both[..both.len() - 3], compression).is_err());
            assert!(unpacked(b"no such stream", compression).is_err());
        }
    }
}
