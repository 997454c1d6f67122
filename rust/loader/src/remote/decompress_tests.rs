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
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
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
