//! Any bytes as text in data: a caption, a json and a path into it, a pattern of shards, an index. None may panic.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use prolip_loader::archive::index::{HEAD, Head, parse_table};
use prolip_loader::config::{CaptionConfig, CaptionSource};
use prolip_loader::error::TokenizeError;
use prolip_loader::rng::SampleRng;
use prolip_loader::shards::{Regions, expand_braces};
use prolip_loader::text::captions::Texts;
use prolip_loader::text::tokenize::{Clean, CleanText, Cleaning, Tokenizer};

const MERGES: &[u8] = b"#version\nt h\nth e</w>\na b\nab ab\nc a\nca t</w>\n";

struct Unchanged;

impl CleanText for Unchanged {
    fn clean(&self, _: &mut [String]) -> Result<(), TokenizeError> {
        Ok(())
    }
}

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let cleaning = Cleaning { how: Clean::Canonicalize, cleaner: Arc::new(Unchanged) };
    Tokenizer::clip(MERGES, 12, cleaning).expect("a small vocabulary")
});

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (kind, text, bytes) = input;
    TOKENIZER.encode_batch(&[text], &mut [0; 12]).expect("any text has ids");
    // Millions of names are right, and only take time and memory.
    let is_long = |digits: &str| digits.len() > 2;
    if text.len() < 80 && !text.split(|letter: char| !letter.is_ascii_digit()).any(is_long) {
        drop(expand_braces(text, &mut Vec::new()));
    }
    drop(parse_table(bytes));
    drop(Regions::decode(bytes, kind.into()));
    if let Some(Ok(head)) = bytes.first_chunk::<HEAD>().map(Head::parse) {
        assert_eq!(head.encode(), bytes[..HEAD]);
    }
    let source = CaptionSource {
        key: text.to_owned(),
        weight: 1.0,
        general: vec!["a.*.b".to_owned()],
        list_weights: if kind & 1 == 0 { Vec::new() } else { vec![0.0, 2.0, 1.0] },
        list_weights_key: (kind & 2 != 0).then(|| "a.w".to_owned()),
    };
    let slots = [CaptionConfig { sources: vec![source] }];
    if let Ok(texts) = Texts::new(Some(bytes), Some(bytes), 64) {
        drop(texts.draw(&slots, 0.5, &mut SampleRng::new(0, 0, 0, 0), &mut Vec::new()));
    }
});
