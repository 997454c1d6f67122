//! Tests with files of one block that no encoder writes.

use super::{CropBox, by_libjpeg, here};

fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u16 + 2;
    [&[0xFF, marker][..], &length.to_be_bytes(), content].concat()
}

/// A scan of the only component: first and last coefficient, high and low bit, data.
fn scan(first: u8, last: u8, bits: u8, data: &[u8]) -> Vec<u8> {
    let header = segment(0xDA, &[1, 1, 0, first, last, bits]);
    [&header[..], data].concat()
}

/// A grey file of one block. Codes of DC terms: `dc` of one bit. Codes of AC terms: 0 ends the block, 10 is the symbol `ac`.
fn one_block(frame: u8, dc: u8, ac: u8, scans: &[Vec<u8>]) -> Vec<u8> {
    let codes = |kind: u8, short: u8, longer: u8, symbols: &[u8]| {
        let counts = [&[short, longer][..], &[0; 14]].concat();
        segment(0xC4, &[&[kind][..], &counts, symbols].concat())
    };
    [
        vec![0xFF, 0xD8],
        segment(0xDB, &[&[0][..], &[1; 64]].concat()),
        segment(frame, &[8, 0, 8, 0, 8, 1, 1, 0x11, 0]),
        codes(0, dc, 0, &[0, 1][..usize::from(dc)]),
        codes(0x10, 1, 1, &[0, ac]),
        scans.concat(),
        vec![0xFF, 0xD9],
    ]
    .concat()
}

#[test]
fn a_code_of_ones_is_left_to_libjpeg() {
    let [good, bad] = [1, 2].map(|codes| one_block(0xC0, codes, 4, &[scan(0, 63, 0, &[0x3F])]));
    let (ours, part) = here(&good, CropBox::whole).unwrap();
    assert!(ours == by_libjpeg(&good).unwrap().part(part));
    assert!(by_libjpeg(&bad).unwrap_err().contains("Huffman"));
    assert!(here(&bad, CropBox::whole).is_none());
}

/// The number 8 at bit 13 has no bit within 16. For the scans that refine it, it is zero.
#[test]
fn coefficients_beyond_16_bits_have_libjpegs_pixels() {
    let mut scans = vec![scan(0, 0, 0, &[0x7F]), scan(1, 63, 13, &[0b1010_0001])];
    scans.extend((0..13).rev().map(|low| scan(1, 63, (low + 1) << 4 | low, &[0x7F])));
    let bytes = one_block(0xC2, 1, 4, &scans);
    let (ours, part) = here(&bytes, CropBox::whole).unwrap();
    assert!(ours == by_libjpeg(&bytes).unwrap().part(part));
}

/// Three runs of 15 zeros and a number lead to coefficient 48, a fourth beyond the block.
#[test]
fn a_run_beyond_the_block_is_left_to_libjpeg() {
    let [good, bad] =
        [0x5F, 0x6B].map(|end| one_block(0xC0, 1, 0xF1, &[scan(0, 63, 0, &[0x5B, end])]));
    let (ours, part) = here(&good, CropBox::whole).unwrap();
    assert!(ours == by_libjpeg(&good).unwrap().part(part));
    assert!(here(&bad, CropBox::whole).is_none());
}
