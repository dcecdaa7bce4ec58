//! `huawei`: Huawei Cloud IoTDA.
//!
//! Client id `{device id}_0_{0|1}_{YYYYMMDDHH}`, user name `{device id}`, password the hex HMAC-SHA256 of the *secret* under the
//! *timestamp*, in UTC. With 1 the hour counts: the broker's clock is in it, or at most ten minutes from it. With 0 it
//! doesn't, and a captured password opens until the secret is changed. Nothing else is signed.
//!
//! A device id is `{product}_{device}`, cut at the first underscore, or else a device's name as it is, of whichever product
//! takes the profile. The hour changes, so the session is the device id's.

use turnpike_core::clock::Now;

use super::{Freshness, Holder, Identity, Login, Profile, SignMethod};
use crate::nonce::WINDOW_MS;
use crate::signed::is_signature_hex;

const HOUR_MS: u64 = 3_600_000;

/// What a huawei SDK sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Huawei<'a> {
    device_id: &'a str,
    /// Ten digits: the key.
    timestamp: &'a str,
    /// When the hour begins, Unix milliseconds; none if it is not to be looked at.
    begins_ms: Option<u64>,
    signature: &'a str,
}

impl<'a> Huawei<'a> {
    /// `rest` is what stands behind `{device id}_0_` in the client id.
    pub(super) fn parse(device_id: &'a str, rest: &'a str, signature: &'a str) -> Option<Self> {
        let (flag, timestamp) = rest.split_once('_')?;
        let begins_ms = match flag {
            "0" => None,
            "1" => Some(begins_ms(timestamp)?),
            _ => return None,
        };
        let fits = timestamp.len() == 10 && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        (fits && !device_id.is_empty()).then_some(Self { device_id, timestamp, begins_ms, signature })
    }
}

impl<'a> Login<'a> for Huawei<'a> {
    fn profile(&self) -> Profile {
        Profile::Huawei
    }

    fn identity(&self) -> Identity<'a> {
        Identity { named: self.device_id.split_once('_'), searched: Some(self.device_id) }
    }

    fn freshness(&self, now: Now) -> Freshness<'a> {
        let is_now = |begins_ms: u64| {
            let (from, to) = (begins_ms.saturating_sub(WINDOW_MS), begins_ms + HOUR_MS + WINDOW_MS);
            (from..to).contains(&now.unix_ms)
        };
        if self.begins_ms.is_none_or(is_now) { Freshness::Enough } else { Freshness::Stale }
    }

    fn is_signed_by(&self, holder: &Holder<'_>) -> bool {
        is_signature_hex(SignMethod::Sha256, self.timestamp.as_bytes(), holder.secret.expose(), self.signature)
    }

    fn lasting_client_id(&self) -> Option<&'a str> {
        Some(self.device_id)
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar; `month` from 1, `year` from 1970.
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.)
fn days(year: u64, month: u64, day: u64) -> u64 {
    // The year begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// When the hour `YYYYMMDDHH` begins, Unix milliseconds. A 31st of February is the 3rd of March.
fn begins_ms(hour: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| super::digits(hour.get(range)?);
    let (year, month, day, hour) = (number(0..4)?, number(4..6)?, number(6..8)?, number(8..10)?);
    let fits = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24;
    fits.then(|| (days(year, month, day) * 24 + hour) * HOUR_MS)
}

/// The hour of a moment as `YYYYMMDDHH`.
pub(crate) fn hour_of(unix_ms: u64) -> String {
    let (day_number, hour) = (unix_ms / (24 * HOUR_MS), unix_ms / HOUR_MS % 24);
    // `civil_from_days` of the same source.
    let shifted = day_number + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}{hour:02}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hours_are_those_of_the_calendar() {
        // Computed with `date -u -d … +%s`.
        for (hour, seconds) in [
            ("1970010100", 0),
            ("2000022923", 951_865_200),
            ("2024022900", 1_709_164_800),
            ("2025041401", 1_744_592_400),
            ("2100030100", 4_107_542_400),
            ("2999010100", 32_472_144_000),
        ] {
            assert_eq!(begins_ms(hour), Some(seconds * 1000), "{hour}");
            assert_eq!(hour_of(seconds * 1000 + HOUR_MS - 1), hour);
        }
        for bad in ["1969123123", "2025001401", "2025131401", "2025010001", "2025013201", "2025010124", "202501012", ""]
        {
            assert_eq!(begins_ms(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_hour_is_written_as_it_is_read(hour in 0..70_000_000_u64) {
            let text = hour_of(hour * HOUR_MS);
            prop_assert_eq!(begins_ms(&text), Some(hour * HOUR_MS), "{}", text);
        }
    }
}
