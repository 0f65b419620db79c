//! How numbers are shown.

/// A number with about three digits: 0.12, 4.56, 45.6, 456.
pub fn digits(value: f64) -> String {
    // Not -0.00.
    let value = if value.abs() < 0.005 { 0.0 } else { value };
    match value.abs() {
        small if small < 9.995 => format!("{value:.2}"),
        middle if middle < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0.00"),
            (-0.001, "0.00"),
            (0.1234, "0.12"),
            (9.996, "10.0"),
            (99.96, "100"),
            (-61.23, "-61.2"),
            (1234.5, "1234"),
        ] {
            assert_eq!(digits(value), text, "{value}");
        }
    }
}
