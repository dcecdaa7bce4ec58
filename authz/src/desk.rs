//! What devices publish for the broker itself: firmware, stored data, answers to commands.

use turnpike_core::gate::{DeviceIdentity, Handling};

/// Which desks are open. What is for one that isn't goes to whoever subscribes to it, like everything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Desks {
    /// Firmware.
    pub ota: bool,
    /// The commands and logs beside it.
    pub commands: bool,
    /// Stored data.
    pub backfill: bool,
}

/// What a message for a desk is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Matter {
    /// `dev/{p}/{d}/ota/check`: it tells its versions and asks for firmware.
    Check,
    /// `…/ota/progress`.
    Progress,
    /// `…/ota/get`: it asks for blocks of a firmware.
    Get,
    /// `…/sys/cmd/reply`.
    CommandReply,
    /// `…/sys/log`: a chunk of its log.
    Log,
    /// `…/backfill`: a batch of what it stored.
    Backfill,
    /// Aliyun's `/ota/device/inform/{pk}/{dn}`.
    AliyunInform,
    /// Aliyun's `/ota/device/progress/{pk}/{dn}`.
    AliyunProgress,
    /// Aliyun's `/sys/{pk}/{dn}/thing/ota/firmware/get`.
    AliyunGet,
}

impl Matter {
    /// What a device's message is about by its topic, on which it may publish; none if it is for no desk.
    #[must_use]
    pub fn of(device: &DeviceIdentity, topic: &str) -> Option<Self> {
        if let Some(rest) = topic.strip_prefix("dev/") {
            // The first letter tells nearly all messages, which are `up/…`, from ours.
            let rest = own(rest, device)?;
            return match rest.as_bytes().first()? {
                b'o' => match rest.strip_prefix("ota/")? {
                    "check" => Some(Self::Check),
                    "progress" => Some(Self::Progress),
                    "get" => Some(Self::Get),
                    _ => None,
                },
                b's' => match rest.strip_prefix("sys/")? {
                    "cmd/reply" => Some(Self::CommandReply),
                    "log" => Some(Self::Log),
                    _ => None,
                },
                b'b' => (rest == "backfill").then_some(Self::Backfill),
                _ => None,
            };
        }
        let whose = |rest: &str| own(rest, device) == Some("");
        if let Some(rest) = topic.strip_prefix("/ota/device/") {
            return match rest.split_once('/')? {
                ("inform", rest) => with_end(rest, whose).then_some(Self::AliyunInform),
                ("progress", rest) => with_end(rest, whose).then_some(Self::AliyunProgress),
                _ => None,
            };
        }
        let rest = own(topic.strip_prefix("/sys/")?, device)?;
        (rest == "thing/ota/firmware/get").then_some(Self::AliyunGet)
    }

    /// Whether those who subscribe get it, too. What is large, or has no meaning beyond the exchange, goes to the desk alone.
    #[must_use]
    pub fn is_routed(self) -> bool {
        match self {
            Self::Check | Self::Progress | Self::CommandReply => true,
            Self::AliyunInform | Self::AliyunProgress | Self::AliyunGet => true,
            Self::Get | Self::Log | Self::Backfill => false,
        }
    }
}

/// What follows `{product}/{device}/`.
fn own<'a>(rest: &'a str, device: &DeviceIdentity) -> Option<&'a str> {
    rest.strip_prefix(&*device.product)?.strip_prefix('/')?.strip_prefix(&*device.device)?.strip_prefix('/')
}

/// Aliyun's topics end with the device, without a slash.
fn with_end(rest: &str, whose: impl Fn(&str) -> bool) -> bool {
    whose(&format!("{rest}/"))
}

impl Desks {
    /// Who is to have a device's message.
    #[must_use]
    pub fn handling(self, device: &DeviceIdentity, topic: &str) -> Handling {
        if self == Self::default() {
            return Handling::Routed;
        }
        match Matter::of(device, topic) {
            Some(Matter::Backfill) if self.backfill => Handling::Handed { routed: false },
            Some(matter @ (Matter::CommandReply | Matter::Log)) if self.commands => {
                Handling::Handed { routed: matter.is_routed() }
            }
            Some(Matter::Backfill | Matter::CommandReply | Matter::Log) | None => Handling::Routed,
            Some(matter) if self.ota => Handling::Handed { routed: matter.is_routed() },
            _ => Handling::Routed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_says_what_it_is_about() {
        let device = DeviceIdentity::new("p", "d");
        for (topic, matter) in [
            ("dev/p/d/ota/check", Some(Matter::Check)),
            ("dev/p/d/ota/progress", Some(Matter::Progress)),
            ("dev/p/d/ota/get", Some(Matter::Get)),
            ("dev/p/d/sys/cmd/reply", Some(Matter::CommandReply)),
            ("dev/p/d/sys/log", Some(Matter::Log)),
            ("dev/p/d/backfill", Some(Matter::Backfill)),
            ("/ota/device/inform/p/d", Some(Matter::AliyunInform)),
            ("/ota/device/progress/p/d", Some(Matter::AliyunProgress)),
            ("/sys/p/d/thing/ota/firmware/get", Some(Matter::AliyunGet)),
            ("dev/p/d/up/ota/check", None),
            ("dev/p/d/ota/checks", None),
            ("dev/p/d/ota/", None),
            ("dev/p/d/", None),
            ("dev/p/d", None),
            ("dev/p/e/ota/check", None),
            ("dev/pp/d/ota/check", None),
            ("dev/p/d/backfill/ack", None),
            ("/ota/device/inform/p/e", None),
            ("/ota/device/inform/p/d/x", None),
            ("/ota/device/upgrade/p/d", None),
            ("/sys/p/d/thing/event/property/post", None),
        ] {
            assert_eq!(Matter::of(&device, topic), matter, "{topic}");
        }
    }

    #[test]
    fn a_desk_that_is_closed_gets_nothing() {
        let device = DeviceIdentity::new("p", "d");
        let handed = |desks: Desks, topic| desks.handling(&device, topic) != Handling::Routed;
        let topics = ["dev/p/d/ota/check", "dev/p/d/sys/log", "dev/p/d/backfill"];
        assert_eq!(topics.map(|topic| handed(Desks::default(), topic)), [false; 3]);
        assert_eq!(topics.map(|topic| handed(Desks { ota: true, ..Desks::default() }, topic)), [true, false, false]);
        assert_eq!(
            topics.map(|topic| handed(Desks { commands: true, ..Desks::default() }, topic)),
            [false, true, false]
        );
        assert_eq!(
            topics.map(|topic| handed(Desks { backfill: true, ..Desks::default() }, topic)),
            [false, false, true]
        );
    }
}
