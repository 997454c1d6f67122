use proptest::prelude::*;

use super::*;

fn entry() -> impl Strategy<Value = Entry> {
    let version = prop_oneof![
        Just(Version::Unknown),
        any::<i64>().prop_map(Version::Modified),
        ".{0,20}".prop_map(|tag: String| Version::ETag(tag.into())),
    ];
    let lengths = (0u32..1 << 20, 1u32..1 << 20);
    (".{0,40}", lengths, any::<u32>(), any::<u64>(), version).prop_map(
        |(location, (count, more), crc, size, version)| Entry {
            location: location.into(),
            count,
            offset: 0,
            length: count + more,
            crc,
            stamp: Stamp { size, version },
        },
    )
}

proptest! {
    #[test]
    fn an_encoded_table_parses_equal(mut entries in prop::collection::vec(entry(), 0..20)) {
        let (mut bytes, mut offset) = (Vec::new(), HEAD as u64);
        for entry in &mut entries {
            entry.offset = offset;
            offset += u64::from(entry.length);
            entry.encode(&mut bytes);
        }
        prop_assert_eq!(parse_table(&bytes).unwrap(), (entries, offset));
        if let Some(cut) = bytes.len().checked_sub(1) {
            prop_assert!(parse_table(&bytes[..cut]).is_err());
        }
    }
}
