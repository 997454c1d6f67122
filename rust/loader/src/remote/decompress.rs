//! Streaming decompression of gzip and zstd.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use crate::shards::Compression;

/// A reader of the decompressed bytes. Concatenated streams are read as one, as by `gunzip` and `zstd -d`.
///
/// # Errors
/// There is no memory for the decoder.
pub fn reader<'packed>(
    packed: impl Read + 'packed,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'packed>> {
    Ok(match compression {
        Compression::Gzip => Box::new(MultiGzDecoder::new(FullReads(packed))),
        Compression::Zstd => Box::new(zstd::Decoder::new(FullReads(packed))?),
    })
}

/// Fills each requested buffer completely, however the bytes arrive. The output of a decoder before damaged data depends on how
/// much input it gets at once, and a damaged shard must yield the same samples every time.
struct FullReads<R>(R);

impl<R: Read> Read for FullReads<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.0.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
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
    fn concatenated_streams_are_joined_and_a_truncated_one_is_an_error() {
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

    /// Returns a few bytes at a time.
    struct Dribble<'bytes>(&'bytes [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = into.len().min(self.1);
            self.0.read(&mut into[..length])
        }
    }

    #[test]
    fn output_before_damage_does_not_depend_on_read_sizes() {
        let plain: Vec<u8> =
            (0..400_000u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&plain).unwrap();
        let gzip = encoder.finish().unwrap();
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        for (compression, mut packed) in [(Compression::Gzip, gzip), (Compression::Zstd, zstd)] {
            let middle = packed.len() / 2;
            packed[middle..middle + 150_000].fill(0xff);
            let given = |at_once| {
                let mut reader = reader(Dribble(&packed, at_once), compression).unwrap();
                let (mut given, mut piece) = (0, vec![0; 1 << 18]);
                while let Ok(length @ 1..) = reader.read(&mut piece) {
                    given += length;
                }
                given
            };
            let whole = given(usize::MAX);
            assert!((1 << 18..plain.len()).contains(&whole), "{whole}");
            for at_once in [100, 4_097, 50_000] {
                assert_eq!(given(at_once), whole, "{compression:?}, {at_once} at once");
            }
        }
    }
}
