//! Tests: known answers and bad input. Each `.rgb` in `tests/data` is what Pillow 13.0's `convert("RGB")` gives for the file.
//! `tests/parity/test_pixels.py` compares with Pillow on real images.

use proptest::prelude::*;

use super::{DecodeError, Decoder, Rgb8};

const LIMIT: u64 = 1 << 20;

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/data/", $name)).as_slice()
    };
}

/// Encoded files of 13 x 11 pixels and their pixels.
fn files() -> [(&'static [u8], &'static [u8]); 6] {
    [
        (data!("420.jpg"), data!("420.rgb")),
        (data!("progressive.jpg"), data!("progressive.rgb")),
        (data!("cmyk.jpg"), data!("cmyk.rgb")),
        (data!("palette.png"), data!("palette.rgb")),
        (data!("alpha.png"), data!("alpha.rgb")),
        (data!("lossy.webp"), data!("lossy.rgb")),
    ]
}

fn decode(bytes: &[u8]) -> Result<Rgb8, DecodeError> {
    let mut image = Rgb8::default();
    Decoder::new(LIMIT).decode(bytes, &mut image).map(|()| image)
}

#[test]
fn an_error_names_a_format_that_must_be_converted() {
    for (bytes, name) in [(&b"GIF89a.."[..], "GIF"), (b"BM......", "BMP")] {
        assert!(matches!(decode(bytes), Err(DecodeError::Convertible(format)) if format == name));
    }
}

#[test]
fn truncated_files_are_errors() {
    for (bytes, _) in files() {
        let last = bytes.len() - 1;
        let result = decode(&bytes[..last / 2]);
        assert!(result.is_err());
    }
    let jpeg = files()[0].0;
    assert!(matches!(decode(&jpeg[..jpeg.len() - 2]), Err(DecodeError::Truncated)));
}

#[test]
fn large_images_are_refused_by_their_header() {
    for (bytes, _) in files() {
        let mut image = Rgb8::default();
        let result = Decoder::new(142).decode(bytes, &mut image);
        assert!(matches!(
            result,
            Err(DecodeError::TooLarge { width: 13, height: 11, max_pixels: 142 })
        ));
        assert_eq!(image.buffer.capacity(), 0);
        assert!(Decoder::new(143).decode(bytes, &mut image).is_ok());
    }
    // A small file that announces 50,000 x 50,000 pixels.
    let mut bomb = files()[0].0.to_vec();
    let header = bomb.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    bomb[header + 5..header + 9].copy_from_slice(&[0xC3, 0x50, 0xC3, 0x50]);
    let result = Decoder::new(100_000_000).decode(&bomb, &mut Rgb8::default());
    assert!(matches!(result, Err(DecodeError::TooLarge { width: 50_000, height: 50_000, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_after_a_signature_do_not_panic(which in 0usize..6, keep in 3usize..40, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = files()[which].0.to_vec();
        bytes.truncate(keep);
        bytes.extend(rest);
        let _ = decode(&bytes);
    }

    #[test]
    fn damaged_files_do_not_panic(which in 0usize..6, places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = files()[which].0.to_vec();
        for (place, value) in places {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        let _ = decode(&bytes);
    }
}
