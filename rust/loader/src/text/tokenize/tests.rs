//! Tests: known answers and laws of CLIP's tokenizer.

use std::sync::{Arc, Mutex};

use super::*;
use proptest::prelude::*;

/// A tiny vocabulary: ids 512.. in this order, then the two special tokens 518 and 519.
pub(super) const MERGES: &str = "#version\nt h\nth e</w>\na b\nab ab\nc a\nca t</w>\n";

/// Lower case and single spaces. Records the number of captions of each call.
#[derive(Default)]
struct Lower {
    calls: Mutex<Vec<usize>>,
}

impl CleanText for Lower {
    fn clean(&self, captions: &mut [String]) -> Result<(), TokenizeError> {
        self.calls.lock().unwrap().push(captions.len());
        for caption in captions {
            *caption = caption.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        }
        Ok(())
    }
}

pub(super) struct Broken;

impl CleanText for Broken {
    fn clean(&self, _: &mut [String]) -> Result<(), TokenizeError> {
        Err(TokenizeError::Clean("out of order".into()))
    }
}

pub(super) fn with(how: Clean, cleaner: Arc<dyn CleanText>) -> Cleaning {
    Cleaning { how, cleaner }
}

fn lower(cleaner: impl CleanText + 'static) -> Cleaning {
    with(Clean::Lower, Arc::new(cleaner))
}

fn clip(context_length: usize) -> Tokenizer {
    Tokenizer::clip(MERGES.as_bytes(), context_length, lower(Lower::default())).unwrap()
}

pub(super) fn encode(tokenizer: &Tokenizer, captions: &[&str]) -> Vec<Vec<i32>> {
    let mut out = vec![-7; captions.len() * tokenizer.context_length()];
    tokenizer.encode_batch(captions, &mut out).unwrap();
    out.chunks(tokenizer.context_length()).map(<[i32]>::to_vec).collect()
}

/// The id of a printable ASCII character: `!` is 0.
pub(super) fn id(letter: char) -> i32 {
    letter as i32 - '!' as i32
}

pub(super) const START: i32 = 518;
pub(super) const END: i32 = 519;

#[test]
fn a_long_caption_keeps_its_end_token() {
    let tokenizer = clip(4);
    assert_eq!(encode(&tokenizer, &["the the the"])[0], [START, 513, 513, END]);
    assert_eq!(encode(&tokenizer, &["the the"])[0], [START, 513, 513, END]);
    assert_eq!(encode(&tokenizer, &["the"])[0], [START, 513, END, 0]);
    let endless = "x".repeat(100_000);
    assert_eq!(encode(&tokenizer, &[&endless])[0], [START, id('x'), id('x'), END]);
}

#[test]
fn invalid_merges_are_refused_with_their_line() {
    let refused =
        |merges: &[u8]| Tokenizer::clip(merges, 8, lower(Broken)).unwrap_err().to_string();
    for (merges, line) in [("#v\na b\na", 3), ("#v\nab c", 2), ("#v\na b\nb c\nab c\na bc", 5)] {
        let error = refused(merges.as_bytes());
        assert!(error.contains(&format!("line {line}")), "{error}");
    }
    assert!(refused(b"\x1f\x8b\xff").contains("still compressed"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn words_joined_are_the_text_without_white_space(text in "\\PC{0,40}") {
        let words: String = split::Words::of(&text).map(|word| text[word].to_owned()).collect();
        let expected: String = text.chars().filter(|letter| !letter.is_whitespace() && *letter != '\u{345}').collect();
        prop_assert_eq!(words, expected);
    }
}
