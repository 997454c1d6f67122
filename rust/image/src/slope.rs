//! Factors of a blend in fixed point, if these give the same samples as PIL's single precision.

/// Fractional bits of [`Slope::units`].
pub(super) const SLOPE_BITS: i32 = 6;

/// `units / 2^6 + rest / 2^22`. Products with differences of samples fit in 16 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slope {
    pub(super) units: i16,
    pub(super) rest: i16,
}

impl Slope {
    /// `None` if PIL's single precision could give another result for some sample: always for factors of 2 and more, otherwise
    /// very rarely.
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

    /// With a difference of samples, rounded down.
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
#[path = "slope_tests.rs"]
mod tests;
