use super::*;

#[test]
fn displayed_locations_have_no_secrets() {
    let url = Location::Url("https://me:pass@h/a.tar?sig=1".to_owned());
    let pipe = Location::Pipe("curl https://h/a.tar?sig=1 | cat".to_owned());
    assert_eq!(url.to_string(), "https://h/a.tar?…");
    assert_eq!(url.written(), "https://me:pass@h/a.tar?sig=1");
    assert_eq!(pipe.to_string(), "pipe:curl https://h/a.tar?… | cat");
    let pattern = Location::of("{https://me:pass@h/a,https://me:pass@h/b}.tar");
    assert_eq!(pattern.to_string(), "{https://h/a,https://h/b}.tar");
    assert_eq!(pipe.written(), "pipe:curl https://h/a.tar?sig=1 | cat");
}

#[test]
fn secrets_are_removed_from_addresses() {
    for (text, expected) in [
        ("https://h/a.tar", "https://h/a.tar"),
        ("https://user:pass@h:1/a@b.tar", "https://h:1/a@b.tar"),
        ("https://h/a.tar?X-Amz-Signature=1", "https://h/a.tar?…"),
        ("s3://b/a.tar#x", "s3://b/a.tar?…"),
    ] {
        assert_eq!(shown(text), expected);
        assert_eq!(
            without_secrets(&format!("é cannot get ({text}): no")),
            format!("é cannot get ({expected}): no")
        );
    }
    assert_eq!(without_secrets("nothing"), "nothing");
    assert_eq!(without_secrets("$(curl https://h/a?x=(1),2&sig=3), b"), "$(curl https://h/a?…), b");
    assert_eq!(without_secrets("http://u:p@h/a,http://u:q@h/b"), "http://h/a,http://h/b");
}
