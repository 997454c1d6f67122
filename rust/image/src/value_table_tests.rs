use super::*;

#[test]
fn every_value_is_replaced_by_its_entry() {
    for width in [2, 4] {
        let table: Vec<u8> =
            (0..ENTRIES * width).map(|place| ((place * 7919) >> 5) as u8).collect();
        let pixels: Vec<u8> = (0..ENTRIES).map(|place| (place / 3) as u8).collect();
        let expected: Vec<u8> = (0..ENTRIES)
            .flat_map(|place| &table[(place % 3 * 256 + place / 3) * width..][..width])
            .copied()
            .collect();
        let mut out = vec![0; ENTRIES * width];
        let table = ValueTable::new(table);
        table.translate(&pixels, &mut out);
        assert_eq!(out, expected);
        let planes =
            (0..3).flat_map(|channel| expected.chunks_exact(width).skip(channel).step_by(3));
        table.translate_to_planes(&pixels, &mut out);
        assert_eq!(out, planes.flatten().copied().collect::<Vec<_>>());
    }
}
