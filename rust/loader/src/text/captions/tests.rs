//! Tests: how often each caption is drawn, and which values are no captions.

use super::*;

const COCO: &str = r#"{"sentences": [{"raw": "one", "score": 0}, {"tokens": []}, {"raw": "three", "score": 2.5},
    {"raw": "", "score": 1}], "scores": [1, 9, 0, 0], "split": "train", "id": 7, "none": null, "empty": [],
    "nested": [["a", "b"], ["c"]], "pairs": {"*": "star", "0": "zero"}}"#;

fn source(key: &str) -> CaptionSource {
    CaptionSource {
        key: key.to_owned(),
        weight: 1.0,
        general: Vec::new(),
        list_weights: Vec::new(),
        list_weights_key: None,
    }
}

fn draw(json: &str, source: &CaptionSource, sample: u64) -> Result<String, String> {
    let texts = Texts::new(None, Some(json.as_bytes()), 100).map_err(|e| e.to_string())?;
    let slots = [CaptionConfig { sources: vec![source.clone()] }];
    let mut rng = SampleRng::new(1, 2, sample, crate::rng::stream::CAPTION);
    let mut captions = Vec::new();
    texts.draw(&slots, 0.0, &mut rng, &mut captions).map_err(|error| error.to_string())?;
    Ok(captions.remove(0).text)
}

/// How often each caption is drawn from `COCO` in 4,000 samples.
fn shares(source: &CaptionSource) -> Vec<(String, f64)> {
    let mut drawn: Vec<String> = (0..4000).map(|at| draw(COCO, source, at).unwrap()).collect();
    drawn.sort();
    drawn
        .chunk_by(|a, b| a == b)
        .map(|same| (same[0].clone(), same.len() as f64 / 4000.0))
        .collect()
}

fn assert_shares(source: &CaptionSource, expected: &[(&str, f64)]) {
    let shares = shares(source);
    assert_eq!(shares.len(), expected.len(), "{source:?}: {shares:?}");
    for ((text, share), (name, wanted)) in shares.iter().zip(expected) {
        assert_eq!(text, name);
        // More than 4 standard deviations of a share of 4,000 draws.
        assert!((share - wanted).abs() < 0.035, "{source:?}: {shares:?}");
    }
}

#[test]
fn caption_weights_come_from_the_config_or_the_json() {
    let beside = |path: &str| CaptionSource {
        list_weights_key: Some(path.to_owned()),
        ..source("sentences.raw")
    };
    let given = |weights: &[f32]| CaptionSource {
        list_weights: weights.to_vec(),
        ..source("sentences.raw")
    };
    let expected = [("", 1.0 / 3.5), ("three", 2.5 / 3.5)];
    assert_shares(&beside("sentences.score"), &expected);
    // The second element has no caption, so its weight is ignored.
    assert_shares(&beside("scores"), &[("one", 1.0)]);
    assert_shares(&given(&[1.0, 5.0, 3.0]), &[("one", 0.25), ("three", 0.75)]);
    let wrong = |source: CaptionSource| draw(COCO, &source, 0).unwrap_err();
    let begin = r#"its json has no weights for "sentences.raw": "#;
    assert_eq!(wrong(beside("nested")), format!("{begin}\"nested\" leads to 3 places, not to 4"));
    assert_eq!(
        wrong(beside("sentences.raw")),
        format!("{begin}\"sentences.raw\" must lead to numbers of at least 0")
    );
    assert_eq!(wrong(given(&[0.0, 1.0])), format!("{begin}the weights of its captions are all 0"));
    let negative = r#"{"a": ["x"], "b": [-1]}"#;
    let minus = CaptionSource { list_weights_key: Some("b".to_owned()), ..source("a") };
    assert!(draw(negative, &minus, 0).is_err());
}

#[test]
fn captions_are_unchanged_and_limited_in_length() {
    let slots = [CaptionConfig { sources: vec![source("txt")] }];
    let draw = |bytes: &[u8]| {
        let mut captions = Vec::new();
        let mut rng = SampleRng::new(0, 0, 0, 0);
        Texts::new(Some(bytes), None, 8)
            .and_then(|texts| texts.draw(&slots, 0.0, &mut rng, &mut captions))
            .map(|()| captions.remove(0).text)
            .map_err(|error| error.to_string())
    };
    // White space is left to the tokenizer: for ftfy, a space at the end may be part of a broken letter.
    assert_eq!(draw(b" a \x00\n"), Ok(" a \0\n".to_owned()));
    assert_eq!(draw(b""), Ok(String::new()));
    assert_eq!(draw(b"12345678"), Ok("12345678".to_owned()));
    assert_eq!(
        draw(b"123456789"),
        Err("its caption has 9 bytes, more than max_caption_bytes = 8".to_owned())
    );
    assert_eq!(draw(b"caf\xe9"), Err("its caption is not UTF-8".to_owned()));
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(101));
    assert_eq!(
        super::tests::draw(&long, &source("a"), 0).unwrap_err(),
        "its caption has 101 bytes, more than max_caption_bytes = 100"
    );
}
