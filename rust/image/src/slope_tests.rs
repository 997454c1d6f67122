use super::Slope;
use crate::portable::blend;

/// Whether the slope gives PIL's sample for each pair of samples.
fn agrees(slope: Slope, factor: f32) -> bool {
    let mut pairs = (0..=255u8).flat_map(|from| (0..=255u8).map(move |to| (from, to)));
    pairs.all(|(from, to)| {
        let (one, other) = (i16::from(from), i16::from(to));
        let sample = (one + slope.times(other - one)).clamp(0, 255) as u8;
        sample == blend(from, to, factor)
    })
}

#[test]
fn slopes_give_the_results_of_float32() {
    let mut missing = 0;
    for step in 0..40 {
        let factor = step as f32 * 0.0731 - 1.0;
        match Slope::of(factor) {
            Some(slope) => assert!(agrees(slope, factor), "{factor}"),
            None => missing += 1,
        }
    }
    assert!(missing < 4, "{missing} of 40 factors have no slope");
}
