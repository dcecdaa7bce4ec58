//! The time of day where a device is, and windows in it.
//!
//! Devices report a fixed offset from UTC (`+08:00`) and report it again when it changes: the broker needs no table of zones and their summers.

use std::fmt;
use std::str::FromStr;

const DAY_MIN: u16 = 24 * 60;

/// A fixed offset from UTC, −12:00 to +14:00, in minutes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Zone(i16);

/// Not a zone: `Z`, or `+hh:mm` or `-hh:mm` from -12:00 to +14:00.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a zone is Z, or +hh:mm or -hh:mm from -12:00 to +14:00")]
pub struct NotAZone;

impl Zone {
    /// Greenwich.
    pub const UTC: Self = Self(0);

    /// So many minutes east of it.
    ///
    /// # Errors
    /// Nobody lives there.
    pub fn from_minutes(minutes: i16) -> Result<Self, NotAZone> {
        if (-12 * 60..=14 * 60).contains(&minutes) { Ok(Self(minutes)) } else { Err(NotAZone) }
    }

    /// Minutes east of Greenwich.
    #[must_use]
    pub const fn minutes(self) -> i16 {
        self.0
    }

    /// The minute of the local day, 0 to 1439.
    #[must_use]
    pub fn minute_of_day(self, unix_s: u64) -> u16 {
        let utc = i32::try_from(unix_s / 60 % u64::from(DAY_MIN)).unwrap_or(0);
        u16::try_from((utc + i32::from(self.0)).rem_euclid(i32::from(DAY_MIN))).unwrap_or(0)
    }
}

impl FromStr for Zone {
    type Err = NotAZone;

    fn from_str(text: &str) -> Result<Self, NotAZone> {
        if text == "Z" {
            return Ok(Self::UTC);
        }
        let (sign, rest) = match text.as_bytes().first() {
            Some(b'+') => (1, text.get(1..)),
            Some(b'-') => (-1, text.get(1..)),
            _ => return Err(NotAZone),
        };
        let minutes = rest.and_then(minutes).filter(|minutes| *minutes < DAY_MIN).ok_or(NotAZone)?;
        Self::from_minutes(sign * i16::try_from(minutes).map_err(|_| NotAZone)?)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        let minutes = self.0.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// A part of the day, from a minute to before another one; over midnight if it ends before it begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Window {
    from_min: u16,
    to_min: u16,
}

/// Not a window: `hh:mm-hh:mm`, which end at another minute than they begin; 24:00 is an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a window is hh:mm-hh:mm, and ends at another time than it begins")]
pub struct NotAWindow;

impl Window {
    /// From a minute of the day (0 to 1439) to before another one (0 to 1440).
    ///
    /// # Errors
    /// Neither empty nor the whole day by halves: it must end at another minute than it begins.
    pub fn new(from_min: u16, to_min: u16) -> Result<Self, NotAWindow> {
        let fine = from_min < DAY_MIN && to_min <= DAY_MIN && from_min != to_min;
        if fine { Ok(Self { from_min, to_min }) } else { Err(NotAWindow) }
    }

    /// A minute of the day is in it.
    #[must_use]
    pub const fn contains(self, minute: u16) -> bool {
        if self.from_min < self.to_min {
            self.from_min <= minute && minute < self.to_min
        } else {
            minute >= self.from_min || minute < self.to_min
        }
    }
}

impl FromStr for Window {
    type Err = NotAWindow;

    fn from_str(text: &str) -> Result<Self, NotAWindow> {
        let (from, to) = text.split_once('-').ok_or(NotAWindow)?;
        Self::new(minutes(from).ok_or(NotAWindow)?, minutes(to).ok_or(NotAWindow)?)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_min, to_min } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from_min / 60, from_min % 60, to_min / 60, to_min % 60)
    }
}

/// At `unix_s` it is, in a zone, a time within one of the windows. No windows: always.
#[must_use]
pub fn is_open(windows: &[Window], zone: Zone, unix_s: u64) -> bool {
    let minute = zone.minute_of_day(unix_s);
    windows.is_empty() || windows.iter().any(|window| window.contains(minute))
}

/// `hh:mm`, up to 24:00.
fn minutes(text: &str) -> Option<u16> {
    let two = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= DAY_MIN).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zones() {
        for (text, minutes) in
            [("Z", 0), ("+00:00", 0), ("+08:00", 480), ("-03:30", -210), ("+14:00", 840), ("-12:00", -720)]
        {
            assert_eq!(text.parse().map(Zone::minutes), Ok(minutes), "{text}");
        }
        for text in
            ["", "8", "+8:00", "+0800", "+08:60", "+14:01", "-12:01", "08:00", "+24:00", "++8:00", "+08:00 ", "+é"]
        {
            assert_eq!(text.parse::<Zone>(), Err(NotAZone), "{text}");
        }
        assert_eq!("-03:30".parse::<Zone>().map(|zone| zone.to_string()), Ok("-03:30".to_owned()));
    }

    #[test]
    fn a_window_may_go_over_midnight_and_is_where_the_device_is() {
        let night: Window = "22:00-05:00".parse().expect("a window");
        let shanghai: Zone = "+08:00".parse().expect("a zone");
        let at = |hours: u64, minutes: u64| (20_000 * 24 + hours) * 3600 + minutes * 60;
        // 22:00 in Shanghai is 14:00 UTC.
        for (hours, minutes, open) in [(13, 59, false), (14, 0, true), (20, 59, true), (21, 0, false), (0, 0, false)] {
            assert_eq!(is_open(&[night], shanghai, at(hours, minutes)), open, "{hours}:{minutes}");
        }
        assert!(is_open(&[], shanghai, at(0, 0)));
        let evening: Window = "18:00-24:00".parse().expect("a window");
        assert!(is_open(&[night, evening], Zone::UTC, at(19, 0)) && !is_open(&[night, evening], Zone::UTC, at(17, 59)));
        for text in ["22:00", "22:00-22:00", "24:00-05:00", "22:00-24:01", "2:00-3:00", "aa:bb-cc:dd"] {
            assert_eq!(text.parse::<Window>(), Err(NotAWindow), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(minutes in -720i16..=840, from in 0u16..1440, to in 0u16..=1440) {
            let zone = Zone::from_minutes(minutes).expect("in range");
            prop_assert_eq!(zone.to_string().parse(), Ok(zone));
            if let Ok(window) = Window::new(from, to) {
                prop_assert_eq!(window.to_string().parse(), Ok(window));
                let open = (0..1440).filter(|minute| window.contains(*minute)).count();
                prop_assert_eq!(open, usize::from((1440 + to - from) % 1440) + if to == 1440 && from == 0 { 1440 } else { 0 });
            }
        }

        #[test]
        fn nothing_that_is_read_panics(text in ".{0,12}") {
            let _ = (text.parse::<Zone>(), text.parse::<Window>());
        }
    }
}
