//! Middle and spread of repeated measurements.

use serde::Serialize;

/// Quartiles, and the values that they are of, in the order of measuring.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
    pub(crate) values: Vec<f64>,
}

impl Spread {
    /// Not a number if there are no values.
    pub(crate) fn of(values: Vec<f64>) -> Self {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let [low, median, high] = [1, 2, 3].map(|quarter| {
            // Between two values, so many quarters of the way.
            let quarters = sorted.len().saturating_sub(1) * quarter;
            let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
            let (below, rest) = (at(quarters / 4), quarters % 4);
            if rest == 0 { below } else { below + (at(quarters / 4 + 1) - below) * rest as f64 / 4.0 }
        });
        Self { low, median, high, values }
    }

    /// A single measurement.
    pub(crate) fn one(value: f64) -> Self {
        Self::of(vec![value])
    }

    /// Of the quotients of values that were measured next to each other: slow drifts of the machine cancel out.
    pub(crate) fn of_ratios(with: &[f64], without: &[f64]) -> Self {
        Self::of(with.iter().zip(without).map(|(with, without)| with / without).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_of_the_sorted_values() {
        let spread = Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
        assert_eq!(spread.values, [5.0, 1.0, 4.0, 2.0, 3.0]);
        let even = Spread::of(vec![4.0, 2.0]);
        assert_eq!((even.low, even.median, even.high), (2.5, 3.0, 3.5));
        let one = Spread::one(7.0);
        assert_eq!((one.low, one.median, one.high), (7.0, 7.0, 7.0));
        assert!(Spread::of(Vec::new()).median.is_nan());
    }

    #[test]
    fn ratios_are_of_neighbours() {
        // Twice as slow in the second half of the run, and the ratio does not see it.
        let spread = Spread::of_ratios(&[90.0, 45.0], &[100.0, 50.0]);
        assert_eq!(spread.values, [0.9, 0.9]);
    }
}
