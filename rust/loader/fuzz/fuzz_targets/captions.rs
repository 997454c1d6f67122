//! Any bytes as a sample's json or `.txt`, any path into it: one caption or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prolip_loader::config::{CaptionConfig, CaptionSource};
use prolip_loader::rng::SampleRng;
use prolip_loader::text::captions::{Scratch, Texts};
use prolip_loader::text::json::JsonText;

const MAX_BYTES: usize = 64;

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (kind, path, bytes) = input;
    walk(bytes);
    let source = CaptionSource {
        key: path.to_owned(),
        weight: 1.0,
        general: vec!["a.*.b".to_owned()],
        list_weights: if kind & 1 == 0 { Vec::new() } else { vec![0.0, 2.0, 1.0] },
        list_weights_key: (kind & 2 != 0).then(|| "a.w".to_owned()),
    };
    let slots = [CaptionConfig { sources: vec![source] }];
    let Ok(texts) = Texts::new(Some(bytes), Some(bytes), MAX_BYTES) else {
        return;
    };
    let mut rng = SampleRng::new(0, 0, u64::from(kind), 0);
    let mut captions = Vec::new();
    if texts.draw(&slots, 0.5, &mut rng, &mut Scratch::default(), &mut captions).is_ok() {
        assert_eq!(captions.len(), 1);
        assert!(captions[0].text.len() <= MAX_BYTES);
    }
});

/// Reads every value that lists and one key lead to.
fn walk(bytes: &[u8]) {
    let Ok(text) = JsonText::parse(bytes) else {
        return;
    };
    let mut left = vec![text.value()];
    // Lists inside lists are read anew at each level.
    for _ in 0..1000 {
        let Some(value) = left.pop() else { return };
        assert_eq!(value.is_string(), value.as_str().is_some());
        assert!(value.kind() == "a number" || value.as_number().is_none());
        left.extend(value.elements());
        left.extend(value.get("a"));
    }
}
