//! Gizwits' check and notice. The vendor publishes no page of the protocol; this is what its `GAgent` (version 4.1) and the modem makers' libraries do.
//!
//! - A check over HTTP: `POST /dev/ota/v4.1/update_and_check/{did}`, a form `passcode=&type=&hard_version=&soft_version=`; modems add `did`, `product_key` and
//!   `otaid_type`. `type` is 1 for the module and 2 for the MCU; both versions have 8 characters. The passcode is the device's secret: compare it in constant time.
//! - The answer is 200 with [`answer`] where there is something, and another status where there is nothing. `GAgent` looks for the URL's end in the bytes of the
//!   connection, at a CR LF, and the modems' libraries take all of the body for the URL: a body *sent in chunks* has its CR LF behind it and suits both.
//! - The URL begins with `http://`: they have no TLS. The download's answer has `Content-Length`, `Firmware-MD5` with 32 digits ([`MD5_HEADER`]), and a
//!   `Content-Disposition` whose file name ends in `.bin` or `.hex`.
//! - A notice ([`notice`]) on `ser2cli_res/{did}`, in binary, makes the device check. There is none that carries the URL.
//!
//! There is no report of progress: that an update has succeeded, the next check tells by its version.

use turnpike_authz::presale::gizwits::form;

use super::{MESSAGE_BYTES_MAX, WireError, name};
use crate::target::{Hardware, Target, Version};

/// The header of a download that has the file's MD5, in 32 hexadecimal digits.
pub const MD5_HEADER: &str = "Firmware-MD5";
/// The command of a notice.
const NOTICE: u16 = 0x0211;

/// Which part of the device it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The module that talks to the network: 1.
    Module,
    /// The MCU: 2.
    Mcu,
}

impl Part {
    fn number(self) -> u8 {
        match self {
            Self::Module => 1,
            Self::Mcu => 2,
        }
    }

    /// As firmware names it: `module` or `mcu`.
    #[must_use]
    pub fn target(self) -> Target {
        let text = match self {
            Self::Module => "module",
            Self::Mcu => "mcu",
        };
        text.parse().expect("a name")
    }

    /// None where gizwits has no such part.
    #[must_use]
    pub fn of(target: &Target) -> Option<Self> {
        [Self::Module, Self::Mcu].into_iter().find(|part| part.target() == *target)
    }
}

/// A device's check.
#[derive(Clone, PartialEq, Eq)]
pub struct Check {
    /// The proof that it is the device of the path's did.
    pub passcode: Box<str>,
    /// Of which part.
    pub part: Part,
    /// What it is.
    pub hardware: Hardware,
    /// What it runs.
    pub version: Version,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { passcode: _, part, hardware, version } = self;
        write!(f, "Check({part:?}, {hardware}, {version})")
    }
}

impl Check {
    /// Reads the body of a check.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(body: &[u8]) -> Result<Self, WireError> {
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        let fields = form(body).ok_or(WireError::Malformed)?;
        let field = |wanted: &str| {
            let found = fields.iter().find(|(field, _)| field == wanted);
            found.map(|(_, value)| value.as_str()).ok_or(WireError::Malformed)
        };
        let part = match field("type")? {
            "1" => Part::Module,
            "2" => Part::Mcu,
            _ => return Err(WireError::Range { field: "type" }),
        };
        let passcode = field("passcode")?;
        if passcode.is_empty() || passcode.len() > 64 {
            return Err(WireError::Range { field: "passcode" });
        }
        Ok(Self {
            passcode: passcode.into(),
            part,
            hardware: name("hard_version", field("hard_version")?)?,
            version: name("soft_version", field("soft_version")?)?,
        })
    }
}

/// The body of an answer that has something. Devices decode nothing: the URL is as it is, and has no CR or LF.
#[must_use]
pub fn answer(version: &Version, url: &str) -> String {
    format!("soft_ver={version}&download_url={url}")
}

/// A notice that there is something for a part. `GAgent` looks at the command and the part only; the first four bytes are those that its own messages begin with.
#[must_use]
pub fn notice(part: Part) -> [u8; 7] {
    let [high, low] = NOTICE.to_be_bytes();
    [0, 0, 0, 3, high, low, part.number()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::target::NameError;

    #[test]
    fn a_check_of_each_kind_of_device() {
        let gagent =
            Check::read(b"passcode=ABCDEFGHIJ&type=2&hard_version=00ESP826&soft_version=04020019").expect("a check");
        assert_eq!((gagent.part, gagent.part.target().as_str()), (Part::Mcu, "mcu"));
        assert_eq!((gagent.hardware.as_str(), gagent.version.as_str()), ("00ESP826", "04020019"));
        assert_eq!(format!("{gagent:?}"), "Check(Mcu, 00ESP826, 04020019)", "no passcode in a log");
        let modem = "did=d&passcode=P&type=1&hard_version=1&soft_version=2&product_key=k&otaid_type=2";
        assert_eq!(Check::read(modem.as_bytes()).map(|check| check.part), Ok(Part::Module));
    }

    #[test]
    fn each_fault_has_its_name() {
        let slash = WireError::Name { field: "soft_version", error: NameError::Character };
        for (body, error) in [
            ("", WireError::Malformed),
            ("passcode=P&type=1&hard_version=1", WireError::Malformed),
            ("passcode=P&type=3&hard_version=1&soft_version=2", WireError::Range { field: "type" }),
            ("passcode=&type=1&hard_version=1&soft_version=2", WireError::Range { field: "passcode" }),
            ("passcode=P&type=1&hard_version=1&soft_version=a/b", slash),
            ("passcode=%zz&type=1&hard_version=1&soft_version=2", WireError::Malformed),
        ] {
            assert_eq!(Check::read(body.as_bytes()), Err(error), "{body}");
        }
        assert_eq!(Check::read(&[b'x'; MESSAGE_BYTES_MAX + 1]), Err(WireError::TooLong));
    }

    #[test]
    fn answers_are_what_devices_look_for() {
        let version = "04020020".parse().expect("a name");
        assert_eq!(answer(&version, "http://h/f?t=1"), "soft_ver=04020020&download_url=http://h/f?t=1");
        // GAgent: the command at 4, the part at 6.
        assert_eq!(notice(Part::Mcu), [0, 0, 0, 3, 0x02, 0x11, 2]);
        assert_eq!(notice(Part::Module)[6], 1);
        assert_eq!(Part::of(&"mcu".parse().expect("a name")), Some(Part::Mcu));
        assert_eq!(Part::of(&"lid".parse().expect("a name")), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..200), text in "(passcode|type|hard_version)=[a-z0-9%&=]{0,40}") {
            let _ = Check::read(&body);
            let _ = Check::read(text.as_bytes());
        }
    }
}
