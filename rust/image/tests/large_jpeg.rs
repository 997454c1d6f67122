//! Time and memory that large progressive images of few bytes take. Alone in its process, whose memory is measured.

#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use prolip_image::{DecodeError, Decoder, Rgb8};

const SIDE: u32 = 9216;

/// A grey image with some scans. The first ten are as an encoder writes them, the others repeat the last.
fn image(scans: usize) -> Vec<u8> {
    let segment = |marker: u8, content: &[u8]| {
        [&[0xFF, marker], &(content.len() as u16 + 2).to_be_bytes()[..], content].concat()
    };
    // The only code is a zero. It means no difference, or, with 14 more zeros, for the end of 16,384 blocks.
    let codes =
        |table: u8, symbol: u8| segment(0xC4, &[&[table, 1][..], &[0; 15], &[symbol]].concat());
    let [high, low] = (SIDE as u16).to_be_bytes();
    let frame = [8, high, low, high, low, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0];
    let blocks = (SIDE as usize / 8).pow(2);
    let mut file = [
        &[0xFF, 0xD8][..],
        &segment(0xDB, &[&[0][..], &[1; 64]].concat()),
        &segment(0xC2, &frame),
        &codes(0, 0),
        &codes(0x10, 0xE0),
        &segment(0xDA, &[3, 1, 0, 2, 0, 3, 0, 0, 0, 0]),
        &vec![0; blocks * 3 / 8],
    ]
    .concat();
    for number in 0..scans - 1 {
        let bits = [0x02, 0x21, 0x10][(number / 3).min(2)];
        file.extend(segment(0xDA, &[1, 1 + (number % 3) as u8, 0, 1, 63, bits]));
        file.resize(file.len() + (blocks / 16_384 * 15).div_ceil(8), 0);
    }
    [file, vec![0xFF, 0xD9]].concat()
}

/// Bytes of memory of this process, by the name of a line in its status.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_large_jpeg_takes_bounded_time_and_memory() {
    let mut decoder = Decoder::new(89_478_485);
    // With 24 scans, libjpeg-turbo begins again after the own decoder.
    for (scans, limit) in [(25, 100 << 20), (5_000, 100 << 20), (10, 1 << 30), (24, 1 << 30)] {
        let (bytes, mut pixels) = (image(scans), Rgb8::default());
        let begun = Instant::now();
        let result = decoder.decode(&bytes, &mut pixels);
        let time = begun.elapsed();
        println!("{scans} scans: {time:?}, {} MB", memory("VmHWM:") >> 20);
        if limit < 1 << 30 {
            let expected = scans as u64;
            assert!(
                matches!(result, Err(DecodeError::TooManyScans { scans, .. }) if scans == expected)
            );
        } else {
            result.unwrap();
            assert!(pixels.pixels().iter().all(|&value| value == 128));
        }
        assert!(memory("VmHWM:") < limit, "{}", memory("VmHWM:"));
        assert!(time < Duration::from_secs(30), "{time:?}");
        drop(pixels);
        assert!(memory("VmRSS:") < 100 << 20, "{}", memory("VmRSS:"));
    }
}
