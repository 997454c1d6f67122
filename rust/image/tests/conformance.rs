//! The table of what Pillow makes of images: its head says how to read it, and `conformance.py` writes its sums.

#![allow(missing_docs, clippy::unwrap_used)]

use prolip_image::{Crop, CropBox, Decoder, Filter, Fit, Mode, Rgb8, Scratch, grid_of, resize_box};
use prolip_jpeg::simd::{at, runnable};
use ring::digest::{SHA256, digest};

const TABLE: &str = include_str!("conformance.tsv");

#[test]
fn every_row_has_pillows_pixels() {
    let rows: Vec<_> = TABLE.lines().filter(|row| !row.starts_with('#')).collect();
    assert!(rows.len() > 100);
    for level in runnable() {
        let wrong: Vec<_> = rows.iter().filter(|row| !at(level, || holds(row))).collect();
        assert!(wrong.is_empty(), "{level:?}: {wrong:#?}");
    }
}

fn holds(row: &str) -> bool {
    let columns: Vec<_> = row.split('\t').collect();
    let &[image, operation, filter, size, sum] = &*columns else { panic!("{row}") };
    let pixels = pixels(&image_of(image, operation), operation, filter, sides(size));
    let hex = |byte: &u8| format!("{byte:02x}");
    digest(&SHA256, &pixels).as_ref().iter().map(hex).collect::<String>() == sum
}

fn sides(size: &str) -> [u32; 2] {
    let (width, height) = size.split_once('x').unwrap();
    [width, height].map(|side| side.parse().unwrap())
}

fn image_of(image: &str, operation: &str) -> Rgb8 {
    if image.contains('x') {
        let [width, height] = sides(image);
        let value = |x, y, c: u32| ((2 * c + 3) * x + (5 * c + 1) * y + (c + 1) * x * y) as u8;
        let pixel = |place| [0, 1, 2].map(|c| value(place % width, place / width, c));
        let pixels = (0..width * height).flat_map(pixel).collect();
        return Rgb8::from_pixels(width, height, pixels).unwrap();
    }
    let digits = image.as_bytes().as_chunks::<2>().0.iter();
    let byte = |digits: &[u8; 2]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    let (bytes, mut decoded) = (digits.map(byte).collect::<Vec<_>>(), Rgb8::default());
    let mut decoder = Decoder::new(1 << 20);
    if operation == "turn" {
        decoder.decode_turned(&bytes, &mut decoded, CropBox::whole).unwrap();
    } else {
        decoder.decode(&bytes, &mut decoded).unwrap();
    }
    decoded
}

fn pixels(image: &Rgb8, operation: &str, filter: &str, size: [u32; 2]) -> Vec<u8> {
    let mut words = operation.split(' ');
    let (name, settings) = (words.next().unwrap(), words.collect::<Vec<_>>());
    let numbers: Vec<u32> = settings.iter().filter_map(|word| word.parse().ok()).collect();
    if ["decode", "turn"].contains(&name) {
        assert_eq!([image.width(), image.height()], size);
        return image.pixels().to_vec();
    }
    let filter = Filter::ALL.into_iter().find(|it| format!("{it:?}").to_lowercase() == filter);
    let filter = filter.unwrap();
    let (mut scratch, mut out) = (Scratch::default(), vec![0; (size[0] * size[1] * 3) as usize]);
    let mut fit = Fit { filter, fill: [250, 20, 100], ..Fit::default() };
    fit.resize = match name {
        "crop" => {
            let &[x, y, width, height] = &*numbers else { panic!("{operation}") };
            let part = CropBox { x, y, width, height };
            resize_box(image, part, filter, size, &mut scratch, &mut out);
            return out;
        }
        "native" => {
            let (rows, columns) = grid_of(image.height(), image.width(), numbers[0], numbers[1]);
            assert_eq!([columns, rows].map(|patches| patches * numbers[0]), size);
            Mode::Squash
        }
        "squash" => Mode::Squash,
        "longest" => Mode::Longest,
        "shortest" => Mode::Shortest,
        _ => panic!("{operation}"),
    };
    fit.crop = if settings == ["floor"] { Crop::Floor } else { Crop::Round };
    fit.apply(image, size, &mut scratch, &mut out);
    out
}
