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

pub(super) fn last(letter: char) -> i32 {
    id(letter) + 256
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
    assert_eq!(refused(b"#v\na b\na"), "clip merges, line 3: a merge is two symbols");
    assert_eq!(
        refused(b"#v\nab c"),
        "clip merges, line 2: a merge must use symbols defined above it"
    );
    assert_eq!(
        refused(b"#v\na b\nb c\nab c\na bc"),
        "clip merges, line 5: two merges must not give the same symbol"
    );
    assert!(refused(b"\x1f\x8b\xff").contains("still compressed"));
}

/// Encodes as the reference does: in each round, merges all equal pairs at once.
fn slow_bpe(merges: &[(String, String)], word: &str) -> Vec<String> {
    let mut symbols: Vec<String> = word.chars().map(String::from).collect();
    symbols.last_mut().unwrap().push_str("</w>");
    while let Some((first, second)) =
        merges.iter().find(|(a, b)| symbols.windows(2).any(|pair| pair[0] == *a && pair[1] == *b))
    {
        let mut joined: Vec<String> = Vec::new();
        let mut rest = symbols.as_slice();
        while let [symbol, others @ ..] = rest {
            match others {
                [next, others @ ..] if symbol == first && next == second => {
                    joined.push(format!("{first}{second}"));
                    rest = others;
                }
                _ => {
                    joined.push(symbol.clone());
                    rest = others;
                }
            }
        }
        symbols = joined;
    }
    symbols
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn words_joined_are_the_text_without_white_space(text in "\\PC{0,40}") {
        let words: String = split::Words::of(&text).map(|word| text[word].to_owned()).collect();
        let expected: String = text.chars().filter(|letter| !letter.is_whitespace() && *letter != '\u{345}').collect();
        prop_assert_eq!(words, expected);
    }

    #[test]
    fn merging_equals_a_plain_implementation(
        steps in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..12),
        word in "[ab]{1,24}",
    ) {
        let mut symbols: Vec<String> = ["a", "b", "a</w>", "b</w>"].map(String::from).to_vec();
        let mut merges: Vec<(String, String)> = Vec::new();
        for (first, second) in steps {
            let (first, second) = (first.get(&symbols).clone(), second.get(&symbols).clone());
            let joined = format!("{first}{second}");
            if !first.ends_with("</w>") && !symbols.contains(&joined) {
                symbols.push(joined);
                merges.push((first, second));
            }
        }
        let text: String = merges.iter().map(|(first, second)| format!("\n{first} {second}")).collect();
        let tokenizer = Tokenizer::clip(format!("#v{text}").as_bytes(), 40, lower(Broken)).unwrap();
        let names = |symbol: &String| match symbols.iter().position(|known| known == symbol).unwrap() {
            0 => id('a'),
            1 => id('b'),
            2 => last('a'),
            3 => last('b'),
            merged => 512 + merged as i32 - 4,
        };
        let expected: Vec<i32> = slow_bpe(&merges, &word).iter().map(names).collect();
        let row = &encode(&tokenizer, &[&word])[0];
        prop_assert_eq!(&row[1..=expected.len()], expected.as_slice());
        prop_assert_eq!(row[1 + expected.len()], 512 + merges.len() as i32 + 1);
    }
}
