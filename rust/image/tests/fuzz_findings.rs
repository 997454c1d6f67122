//! Inputs found by fuzzing that were once handled wrongly, each with the right result.

#![allow(missing_docs, clippy::unwrap_used)]

use prolip_image::{Decoder, Rgb8};

const PROGRESSIVE: &[u8] = include_bytes!("data/progressive.jpg");
const BASELINE: &[u8] = include_bytes!("data/420.jpg");
/// A JPEG without Huffman tables, like a frame of Motion JPEG: those of the standard apply. Pillow's pixels are beside it.
const MOTION: &[u8] = include_bytes!("data/motion.jpg");
const MOTION_PIXELS: &[u8] = include_bytes!("data/motion.rgb");

fn without(jpeg: &[u8], marker: u8) -> Vec<u8> {
    let (mut kept, mut rest) = (jpeg[..2].to_vec(), &jpeg[2..]);
    while rest[1] != 0xDA {
        let length = 2 + usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if rest[1] != marker {
            kept.extend_from_slice(&rest[..length]);
        }
        rest = &rest[length..];
    }
    kept.extend_from_slice(rest);
    assert!(kept.len() < jpeg.len());
    kept
}

/// Nothing of the previous image may remain: a JPEG without quantization tables was decoded with the previous one's.
#[test]
fn a_jpeg_does_not_inherit_the_tables_of_the_previous_one() {
    let mut decoder = Decoder::new(1 << 20);
    let mut image = Rgb8::default();
    for before in [PROGRESSIVE, BASELINE] {
        decoder.decode(before, &mut image).unwrap();
        assert!(decoder.decode(&without(BASELINE, 0xDB), &mut image).is_err());
        decoder.decode(before, &mut image).unwrap();
        decoder.decode(MOTION, &mut image).unwrap();
        assert!(image.pixels() == MOTION_PIXELS);
    }
}
