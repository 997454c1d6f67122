//! Any bytes as an image: dispatch by the first bytes, then each format's decoder, whole and in part, with the vector
//! instructions of every level that the processor has.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use prolip_image::{CropBox, Decoder, Rgb8};
use prolip_jpeg::simd::{at, runnable};
use prolip_loader::rng::SampleRng;

/// Few pixels, so that no input takes much time or memory.
const MAX_PIXELS: u64 = 1 << 16;

thread_local! {
    /// Reused as in a thread of the loader: one image must not affect the next.
    static STATE: RefCell<(Decoder, Rgb8)> = RefCell::new((Decoder::new(MAX_PIXELS), Rgb8::default()));
}

fuzz_target!(|bytes: &[u8]| {
    // A fresh decoder that leaves JPEG to libjpeg-turbo gives the same pixels, or none as well.
    let mut expected = Rgb8::default();
    let sound = Decoder::of_libraries(MAX_PIXELS).decode(bytes, &mut expected);
    let expected = sound.is_ok().then_some(&expected);
    STATE.with_borrow_mut(|(decoder, image)| {
        for level in runnable() {
            at(level, || check(decoder, image, bytes, expected));
        }
    });
});

fn check(decoder: &mut Decoder, image: &mut Rgb8, bytes: &[u8], expected: Option<&Rgb8>) {
    assert_eq!(decoder.decode(bytes, image).is_ok(), expected.is_some());
    let Some(expected) = expected else {
        return;
    };
    let (width, height) = (image.width(), image.height());
    assert_eq!((width, height), (expected.width(), expected.height()));
    assert!((1..=MAX_PIXELS).contains(&(u64::from(width) * u64::from(height))));
    assert_eq!(image.pixels(), expected.pixels());
    let part = part(width, height, bytes.len() as u64);
    decoder.decode_part(bytes, image, |_, _| part).expect("decoded before");
    let row = |image: &Rgb8, y: u32| {
        let start = (y as usize * width as usize + part.x as usize) * 3;
        image.pixels()[start..start + part.width as usize * 3].to_vec()
    };
    for y in part.y..part.y + part.height {
        assert_eq!(row(image, y), row(expected, y));
    }
}

fn part(width: u32, height: u32, seed: u64) -> CropBox {
    let mut rng = SampleRng::new(seed, 0, 0, 0);
    let (x, y) = (rng.below(width), rng.below(height));
    CropBox { x, y, width: 1 + rng.below(width - x), height: 1 + rng.below(height - y) }
}
