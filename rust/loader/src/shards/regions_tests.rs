use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn encoded_regions_decode_equal(mut places in prop::collection::vec(any::<u32>(), 1..50)) {
        places.sort_unstable();
        let regions = Regions::new(places);
        let mut bytes = Vec::new();
        regions.encode(&mut bytes);
        prop_assert_eq!(Regions::decode(&bytes, regions.len() as u32), Some(regions.clone()));
        prop_assert_eq!(Regions::decode(&bytes, regions.len() as u32 + 1), None);
        prop_assert_eq!(Regions::decode(&bytes[..bytes.len() - 1], regions.len() as u32), None);
    }

    #[test]
    fn any_bytes_decode_to_sorted_regions_or_none(bytes in prop::collection::vec(any::<u8>(), 0..60), count in any::<u32>()) {
        for count in [count, count % 20] {
            if let Some(regions) = Regions::decode(&bytes, count) {
                prop_assert!(regions.places.is_sorted());
                prop_assert_eq!(regions.len(), count as usize);
            }
        }
    }
}
