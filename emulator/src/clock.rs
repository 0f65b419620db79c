//! The emulator's own clock, which may be wrong on purpose.

use std::time::{SystemTime, UNIX_EPOCH};

/// A clock that differs from the machine's by a fixed number of seconds.
///
/// Every `iat`, `exp`, `se` and `Date` comes from it, so that a client whose clock
/// differs from Azure's can be tested without touching either.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    skew: i64,
}

impl Clock {
    pub(crate) fn new(skew: i64) -> Clock {
        Clock { skew }
    }

    /// Seconds since 1970.
    pub(crate) fn now(self) -> i64 {
        let machine = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX));
        machine.saturating_add(self.skew)
    }
}

/// `Mon, 30 Jan 2023 18:37:33 GMT`, the form of `Date` and `Last-Modified` (RFC 9110, 5.6.7).
pub(crate) fn http_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let civil = Civil::of(seconds);
    let weekday = DAYS[seconds.div_euclid(86_400).rem_euclid(7) as usize];
    let month = MONTHS[(civil.month - 1) as usize];
    format!(
        "{weekday}, {:02} {month} {:04} {:02}:{:02}:{:02} GMT",
        civil.day, civil.year, civil.hour, civil.minute, civil.second
    )
}

/// `2023-01-30T18:57:33Z`, the form of a SAS expiry (`se`).
pub(crate) fn iso_date(seconds: i64) -> String {
    let civil = Civil::of(seconds);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
    )
}

struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    /// Counts in years that begin in March, so that the leap day comes last.
    fn of(seconds: i64) -> Civil {
        let days = seconds.div_euclid(86_400) + 719_468;
        let rest = seconds.rem_euclid(86_400);
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{http_date, iso_date};

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(iso_date(1_675_105_053), "2023-01-30T18:57:33Z");
        assert_eq!(iso_date(1_709_164_800), "2024-02-29T00:00:00Z");
    }
}
