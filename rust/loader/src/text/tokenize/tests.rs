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

/// The row with these ids between the special tokens.
pub(super) fn row(ids: &[i32], length: usize) -> Vec<i32> {
    let mut row = vec![START];
    row.extend_from_slice(ids);
    row.push(END);
    row.resize(length, 0);
    row
}

#[test]
fn clip_gives_known_token_ids() {
    let (the, cat, abab) = (513, 517, 515);
    let (ab, th) = (514, 512);
    let cases: &[(&str, &[i32])] = &[
        ("", &[]),
        ("  \t\r\n ", &[]),
        ("the", &[the]),
        ("The\tCAT", &[the, cat]),
        ("th", &[id('t'), last('h')]),
        ("thx", &[th, last('x')]),
        // Pairs merge from the left, and the last letter of a word is a different symbol.
        ("ababx", &[abab, last('x')]),
        ("abababx", &[abab, ab, last('x')]),
        ("abab", &[ab, id('a'), last('b')]),
        // Numbers are single, contractions come before runs, and a run of punctuation includes a quote.
        ("a12", &[last('a'), last('1'), last('2')]),
        ("it's", &[id('i'), last('t'), id('\''), last('s')]),
        ("'stop", &[id('\''), last('s'), id('t'), id('o'), last('p')]),
        (".'s", &[id('.'), last('\''), last('s')]),
        ("'the", &[id('\''), last('t'), id('h'), last('e')]),
        ("'x", &[last('\''), last('x')]),
        (
            "'ll've're'm'd",
            &[
                id('\''),
                id('l'),
                last('l'),
                id('\''),
                id('v'),
                last('e'),
                id('\''),
                id('r'),
                last('e'),
                id('\''),
                last('m'),
                id('\''),
                last('d'),
            ],
        ),
        ("<start_of_text>the<end_of_text>", &[START, the, END]),
        ("<START_of_text>", &[START]),
        ("<star", &[last('<'), id('s'), id('t'), id('a'), last('r')]),
        ("&", &[last('&')]),
        ("the & the", &[the, last('&'), the]),
    ];
    let tokenizer = clip(20);
    for (caption, ids) in cases {
        assert_eq!(encode(&tokenizer, &[caption])[0], row(ids, 20), "{caption:?}");
    }
    assert_eq!(tokenizer.vocab_size(), 520);
    assert_eq!(tokenizer.pad_id(), 0);
    assert!(tokenizer.padding().in_text && !tokenizer.padding().left);
}

#[test]
fn text_beyond_ascii_is_split_by_character_class() {
    let words =
        |text: &str| split::Words::of(text).map(|word| text[word].to_owned()).collect::<Vec<_>>();
    let cases: &[(&str, &[&str])] = &[
        ("été", &["été"]),
        ("日本語7", &["日本語", "7"]),
        ("½Ⅻ", &["½", "Ⅻ"]),
        ("🙂🙂!", &["🙂🙂!"]),
        ("a\u{301}", &["a", "\u{301}"]),
        // A mark that folds to a letter is in no word.
        ("a\u{345}b.\u{345}.", &["a", "b", ".", "."]),
        ("'ſx", &["'ſ", "x"]),
        ("<ſtart_of_text>x", &["<ſtart_of_text>", "x"]),
        ("a\u{a0}b\u{3000}c\u{85}", &["a", "b", "c"]),
    ];
    for (text, expected) in cases {
        assert_eq!(words(text), *expected, "{text:?}");
    }
}

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
fn a_batch_is_cleaned_in_one_call() {
    let cleaner = Arc::new(Lower::default());
    let tokenizer =
        Tokenizer::clip(MERGES.as_bytes(), 8, with(Clean::Lower, cleaner.clone())).unwrap();
    let rows = encode(&tokenizer, &["the", "THE\u{a0}THE", "The", "&amp;", "the &", "\u{7f}"]);
    assert_eq!(rows[1], row(&[513, 513], 8));
    assert_eq!(rows[0], rows[2]);
    assert_eq!(*cleaner.calls.lock().unwrap(), [3]);
    encode(&tokenizer, &["plain ASCII: nothing to do!"]);
    assert_eq!(cleaner.calls.lock().unwrap().len(), 1);
}

#[test]
fn a_failing_cleaner_fails_the_batch_and_leaves_only_padding() {
    let tokenizer = Tokenizer::clip(MERGES.as_bytes(), 4, lower(Broken)).unwrap();
    let mut out = [-7; 8];
    let error = tokenizer.encode_batch(&["the", "thé"], &mut out).unwrap_err();
    assert_eq!(error.to_string(), "captions cannot be cleaned: out of order");
    assert_eq!(out, [0; 8]);
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

#[test]
fn a_context_length_without_room_for_text_is_refused() {
    let error = Tokenizer::clip(MERGES.as_bytes(), 2, lower(Broken)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tokenizer clip: context_length 2 is too short: must be above the 2 special tokens"
    );
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
    fn rows_have_start_and_end_tokens_and_padding_at_the_end(captions in proptest::collection::vec("\\PC{0,30}|[ -~]{0,60}|(the |cat|'s|<|&){0,20}", 0..6), length in 3_usize..12) {
        let tokenizer = clip(length);
        let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
        for row in encode(&tokenizer, &captions) {
            prop_assert_eq!(row[0], START);
            // `!` is 0 too, so search for the last end token.
            let end = row.iter().rposition(|id| *id == END);
            prop_assert!(end.is_some());
            prop_assert!(row[end.unwrap()..].iter().skip(1).all(|id| *id == 0));
            prop_assert!(row.iter().all(|id| (0..520).contains(id)));
        }
    }

    #[test]
    fn a_row_depends_only_on_its_caption(captions in proptest::collection::vec("[a-e&é' ]{0,20}", 1..8)) {
        let tokenizer = clip(9);
        let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
        let together = encode(&tokenizer, &captions);
        for (caption, row) in captions.iter().zip(&together) {
            prop_assert_eq!(&encode(&clip(9), &[caption])[0], row);
        }
        prop_assert_eq!(encode(&tokenizer, &captions), together);
    }

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
