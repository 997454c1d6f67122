//! Any text as a caption: which ones need cleaning, words, byte pairs, rows of fixed length.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use prolip_loader::error::TokenizeError;
use prolip_loader::text::tokenize::{Clean, CleanText, Cleaning, Tokenizer};

const MERGES: &str = "#version\nt h\nth e</w>\na b\nab ab\nc a\nca t</w>\ni n\nin g</w>\no n</w>\n";
const LENGTH: usize = 12;

/// Leaves captions as they are: every text must be encoded, cleaned or not.
struct Nothing;

impl CleanText for Nothing {
    fn clean(&self, _: &mut [String]) -> Result<(), TokenizeError> {
        Ok(())
    }
}

static TOKENIZERS: LazyLock<[Tokenizer; 3]> = LazyLock::new(|| {
    [Clean::Lower, Clean::Whitespace, Clean::Canonicalize].map(|how| {
        let cleaning = Cleaning { how, cleaner: Arc::new(Nothing) };
        Tokenizer::clip(MERGES.as_bytes(), LENGTH, cleaning).expect("a small vocabulary")
    })
});

fuzz_target!(|text: &str| {
    for tokenizer in &*TOKENIZERS {
        check(tokenizer, text);
    }
});

fn check(tokenizer: &Tokenizer, text: &str) {
    let vocab_size = tokenizer.vocab_size() as i32;
    let (start, end) = (vocab_size - 2, vocab_size - 1);
    let mut rows = [-1; 2 * LENGTH];
    tokenizer.encode_batch(&[text, "the cat"], &mut rows).expect("any text has ids");
    let (row, other) = rows.split_at(LENGTH);
    assert_eq!(row[0], start);
    assert!(row.contains(&end));
    assert!(row.iter().all(|id| (0..vocab_size).contains(id)));
    // The batch's other captions do not matter.
    let mut alone = [-1; LENGTH];
    tokenizer.encode_batch(&["the cat"], &mut alone).expect("encoded before");
    assert_eq!(other, alone);
}
