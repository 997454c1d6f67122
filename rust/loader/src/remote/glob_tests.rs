use super::*;

#[test]
fn unreadable_addresses_are_named_at_opening() {
    let settled = |shards: &[Location], config: &StoreConfig| {
        settle(shards.to_vec(), config, &AtomicBool::new(false))
    };
    let url = |text: &str| Location::Url(text.to_owned());
    let plain = StoreConfig::default();
    let pipes = StoreConfig { allow_pipe: true, ..plain.clone() };
    let pipe = Location::Pipe("cat *.tar".to_owned());
    let good =
        [url("s3://b/a.tar"), url("http://h/a.tar?x=*"), Location::File("a*".into()), pipe.clone()];
    assert_eq!(settled(&good, &pipes).unwrap(), good);
    for (shard, rule) in [
        (pipe, "allow_pipe"),
        (url("ftp://h/a.tar"), "must begin with"),
        (url("s3://b"), "a bucket and a path"),
        (url("http://h/*.tar"), "braces"),
        (url("hf://datasets/o/n/*.tar"), "braces"),
        (url("hf://models/o/n/a.tar"), "hf://datasets/OWNER/NAME/PATH"),
    ] {
        let shards = std::slice::from_ref(&shard);
        let error = settled(shards, &plain).unwrap_err();
        assert!(matches!(&error, Error::Config(error) if error.field == "shards"));
        assert!(error.to_string().contains(rule), "{error}");
        let same = check_addresses(shards, &plain).unwrap_err();
        assert_eq!(same.to_string(), error.to_string());
    }
}
