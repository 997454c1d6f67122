use super::*;
use crate::Filter;

#[test]
fn sums_of_the_upper_coefficient_parts_fit_in_16_bits() {
    let sizes = [1, 2, 3, 5, 17, 100, 223, 224, 225, 300, 448, 999, 4000, 20_000];
    let mut columns = Coefficients::default();
    for (input, filter) in
        sizes.into_iter().flat_map(|size| Filter::ALL.map(|filter| (size, filter)))
    {
        for output in [1, 2, 7, 33, 224, 336] {
            columns.compute(filter, [input, output], [0, output]);
            for index in 0..output as usize {
                let (_, weights) = columns.taps(index);
                for chunk in weights.chunks(CHUNK) {
                    let sum: i32 = chunk.iter().map(|&weight| upper(weight).abs()).sum();
                    assert!(
                        sum * 255 <= i32::from(i16::MAX),
                        "{filter:?} {input} to {output}: {sum}"
                    );
                    assert!(chunk.iter().all(|&weight| upper(weight).abs() < 128));
                }
            }
        }
    }
}
