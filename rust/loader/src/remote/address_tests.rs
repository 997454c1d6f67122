use super::*;

#[test]
fn hub_addresses_become_file_urls() {
    let resolved = |url: &str, hub: &Hub| match resolve(url, hub) {
        Ok(Place::Http { url, token }) => Some((url, token)),
        _ => None,
    };
    let hub = Hub::default();
    for (url, expected) in [
        (
            "hf://datasets/o/n/a/b-0.tar",
            Some("https://huggingface.co/datasets/o/n/resolve/main/a/b-0.tar"),
        ),
        (
            "hf://datasets/o/n@v1/b.tar",
            Some("https://huggingface.co/datasets/o/n/resolve/v1/b.tar"),
        ),
        (
            "hf://datasets/o/n@refs%2Fpr%2F1/b.tar",
            Some("https://huggingface.co/datasets/o/n/resolve/refs%2Fpr%2F1/b.tar"),
        ),
        ("hf://datasets/o/n", None),
        ("hf://datasets/o//b.tar", None),
        ("hf://o/n/x/b.tar", None),
    ] {
        let found = resolved(url, &hub).map(|(url, _)| url);
        assert_eq!(found.as_deref(), expected, "{url}");
    }
    let other =
        Hub { endpoint: Some("http://127.0.0.1:9/".to_owned()), token: Some("secret".to_owned()) };
    assert_eq!(
        resolved("hf://datasets/o/n/b.tar", &other),
        Some((
            "http://127.0.0.1:9/datasets/o/n/resolve/main/b.tar".to_owned(),
            Some("secret".to_owned())
        ))
    );
    // The token is sent only to the hub.
    assert_eq!(resolved("http://h/b.tar", &other).unwrap().1, None);
}
