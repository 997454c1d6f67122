//! Any bytes as a picture: dispatch by the first bytes, then libjpeg-turbo, libwebp or the `png` crate.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use prolip_loader::decode::{Decoder, Rgb8};

/// Few pixels, so that an input takes little time and memory whatever its header says.
const MAX_PIXELS: u64 = 1 << 16;

thread_local! {
    /// Reused as a loader's thread reuses them: what one picture leaves behind must not hurt the next.
    static STATE: RefCell<(Decoder, Rgb8)> = RefCell::new((Decoder::new(MAX_PIXELS), Rgb8::default()));
}

fuzz_target!(|bytes: &[u8]| {
    STATE.with_borrow_mut(|(decoder, picture)| {
        if decoder.decode(bytes, picture).is_ok() {
            let (width, height) = (u64::from(picture.width()), u64::from(picture.height()));
            assert!((1..=MAX_PIXELS).contains(&(width * height)));
            assert_eq!(picture.pixels().len() as u64, width * height * 3);
            // A fresh decoder gives the same pixels.
            let mut again = Rgb8::default();
            Decoder::new(MAX_PIXELS)
                .decode(bytes, &mut again)
                .expect("decoded before");
            assert_eq!(again.pixels(), picture.pixels());
        }
    });
});
