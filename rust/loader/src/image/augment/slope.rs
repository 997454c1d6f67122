//! Factors of a blend in fixed point, if these give the same samples as PIL's single precision.

/// Fractional bits of [`Slope::units`].
pub(super) const SLOPE_BITS: i32 = 6;

/// A factor in fixed point: `units / 2^6 + rest / 2^22`. Its products with differences of samples fit in 16 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slope {
    pub(super) units: i16,
    pub(super) rest: i16,
}

impl Slope {
    /// The slope of a factor. `None` if PIL's single precision could give another result for some sample: always for factors of
    /// 2 and more, otherwise very rarely.
    pub(super) fn of(factor: f32) -> Option<Self> {
        if factor.is_nan() || factor.abs() >= 1.99 {
            return None;
        }
        let fixed = (f64::from(factor) * f64::from(1 << 22)).floor() as i32;
        [fixed, fixed + 1]
            .map(|fixed| Self { units: ((fixed + 0x8000) >> 16) as i16, rest: fixed as i16 })
            .into_iter()
            .find(|slope| slope.is_exact(factor))
    }

    /// The product with a difference of samples, rounded down.
    #[inline(always)]
    pub(super) fn times(self, difference: i16) -> i16 {
        let rest = (i32::from(difference) * i32::from(self.rest)) >> 16;
        difference.wrapping_mul(self.units).wrapping_add(rest as i16) >> SLOPE_BITS
    }

    /// Whether every difference gives the same product in single precision, and its fraction is so far below 1 that adding
    /// a sample does not round it up.
    fn is_exact(self, factor: f32) -> bool {
        const BELOW_ONE: f32 = 1.0 - 1.0 / 65536.0;
        let wrong = |difference: i16| {
            let fraction = factor * f32::from(difference) - f32::from(self.times(difference));
            !(0.0..=BELOW_ONE).contains(&fraction)
        };
        (-255..256).filter(|&difference| wrong(difference)).count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Slope;
    use crate::image::augment::portable::blend;
    use crate::rng::SampleRng;

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
        let mut rng = SampleRng::new(3, 0, 0, 0);
        let mut missing = 0;
        for _ in 0..40 {
            let factor = rng.range(-1.0, 1.9) as f32;
            match Slope::of(factor) {
                Some(slope) => assert!(agrees(slope, factor), "{factor}"),
                None => missing += 1,
            }
        }
        assert!(missing < 4, "{missing} of 40 factors have no slope");
    }

    #[test]
    fn factors_that_round_differently_have_no_slope() {
        // 1.1 is no single-precision number, but ten times the nearest one is rounded to 11.
        for factor in [1.1, 2.0, 2.5, -2.0, f32::INFINITY, f32::NAN] {
            assert!(Slope::of(factor).is_none(), "{factor}");
        }
        for factor in [0.0, 0.5, 0.75, 1.0, 1.5, -0.5] {
            assert!(Slope::of(factor).is_some_and(|slope| agrees(slope, factor)));
        }
    }
}
