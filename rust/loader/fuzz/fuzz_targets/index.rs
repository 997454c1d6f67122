//! Any bytes as parts of an index file: its head, its table, a shard's regions. What is read comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prolip_loader::archive::index::{HEAD, Head, parse_table};
use prolip_loader::shards::Regions;

fuzz_target!(|input: (u16, &[u8])| {
    let (count, bytes) = input;
    regions(bytes, count);
    if let Some(Ok(head)) = bytes.first_chunk::<HEAD>().map(Head::parse) {
        assert_eq!(head.encode(), bytes[..HEAD]);
    }
    let Ok((entries, end)) = parse_table(bytes, 1) else {
        return;
    };
    let mut again = Vec::new();
    for entry in &entries {
        entry.encode(&mut again);
    }
    assert_eq!(parse_table(&again, 1).expect("written here"), (entries, end));
});

/// In order, as many as were asked for, the same when written again.
fn regions(bytes: &[u8], count: u16) {
    let Some(regions) = Regions::decode(bytes, u32::from(count)) else {
        return;
    };
    assert_eq!(regions.len(), usize::from(count));
    let mut end = None;
    for number in 0..u32::from(count) {
        let region = regions.get(number).expect("as many as were asked for");
        assert!(end.is_none_or(|end| region.start == end));
        assert!(region.end >= region.start);
        end = Some(region.end);
    }
    let mut again = Vec::new();
    regions.encode(&mut again);
    assert_eq!(Regions::decode(&again, u32::from(count)), Some(regions));
}
