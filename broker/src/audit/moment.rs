//! Moments as people write them: milliseconds since 1970 UTC, a day, or RFC 3339.

use std::str::FromStr;

use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, UtcDateTime};

/// A moment, milliseconds since 1970 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment(pub u64);

/// A text that is no moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a time is written 2026-07-31, 2026-07-31T12:00:00Z, or as milliseconds since 1970 UTC")]
pub struct NoMoment;

impl FromStr for Moment {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Self, NoMoment> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self).map_err(|_| NoMoment);
        }
        let moment = match text.len() {
            10 => day(text).ok_or(NoMoment)?.midnight().as_utc(),
            _ => OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NoMoment)?.to_utc(),
        };
        u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).map(Self).map_err(|_| NoMoment)
    }
}

fn day(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let mut number = || parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?.parse::<u16>().ok();
    let (year, month, day) = (number()?, number()?, number()?);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()
}

/// As RFC 3339, in UTC.
#[must_use]
pub fn format_ms(ms: u64) -> String {
    let moment = UtcDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    moment.ok().and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| ms.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_three_ways() {
        for text in ["1785499200000", "2026-07-31T12:00:00Z", "2026-07-31T14:00:00+02:00"] {
            assert_eq!(text.parse(), Ok(Moment(1_785_499_200_000)), "{text}");
        }
        assert_eq!("2026-07-31".parse(), Ok(Moment(1_785_456_000_000)));
        assert_eq!("1970-01-01".parse(), Ok(Moment(0)));
        for text in ["", "yesterday", "2026-02-30", "2026-7-31", "1969-12-31", "99999999999999999999", "+026-07-31"] {
            assert_eq!(text.parse::<Moment>(), Err(NoMoment), "{text}");
        }
        assert_eq!(format_ms(1_785_499_200_123), "2026-07-31T12:00:00.123Z");
        assert_eq!(format_ms(u64::MAX), u64::MAX.to_string());
    }
}
