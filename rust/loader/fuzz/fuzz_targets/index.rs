//! Any bytes as what an index says of a shard: regions that are whole and in order, or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prolip_loader::index::Regions;

fuzz_target!(|input: (u16, &[u8])| {
    let (count, bytes) = input;
    let Some(regions) = Regions::decode(bytes, u32::from(count)) else {
        return;
    };
    assert_eq!(regions.len(), usize::from(count));
    let mut end = 0;
    for number in 0..u32::from(count) {
        let region = regions.get(number).expect("as many as were asked for");
        assert!(region.start >= end || number == 0);
        assert!(region.end >= region.start);
        end = region.end;
    }
    let mut again = Vec::new();
    regions.encode(&mut again);
    assert_eq!(Regions::decode(&again, u32::from(count)), Some(regions));
});
