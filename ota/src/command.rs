//! Commands beside firmware: reboot, reset, wipe, upload-logs; each a request that is followed to its end.
//!
//! ```text
//! Queued ─▶ Sent ─▶ Accepted ─▶ Done │ Failed
//!    │        └─────▶ Done │ Failed │ Rejected
//!    └───────────────▶ Expired  (from each but the last ones)
//! ```
//!
//! A command goes out on `dev/{p}/{d}/sys/cmd`, at once or when the device comes, and again at each time that it comes, until it is answered or its deadline has
//! passed. So a device may hear one twice, and tells by the `id` that it is the same:
//!
//! ```json
//! {"id": 17, "command": "reboot", "arguments": null, "deadline": 1795273800}
//! ```
//!
//! and answers, on `dev/{p}/{d}/sys/cmd/reply`, once or twice; what it doesn't know is `rejected`:
//!
//! ```json
//! {"id": 17, "state": "accepted"}
//! {"id": 17, "state": "done", "reason": "rebooted"}
//! ```
//!
//! An ended one is kept for [`KEPT_MS`] to be read, in memory; in the store there are those that haven't ended.

use turnpike_authz::names::{DeviceName, ProductKey};

mod book;

pub use book::Book;

/// Commands of one device that haven't ended.
pub const DEVICE_OPEN_MAX: usize = 16;
/// Commands in all, also those that have ended and are kept.
pub const COMMANDS_MAX: usize = 100_000;
/// Bytes of the arguments as JSON.
pub const ARGUMENTS_BYTES_MAX: usize = 4096;
/// Bytes of a reason; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 256;
/// Milliseconds until the deadline, at the most: a week.
pub const DEADLINE_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// Milliseconds for which an ended one can be read.
pub const KEPT_MS: u64 = 3_600_000;

/// A command's number. Given once and never again, a later one is greater. It fits in a JSON number, exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u32);

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Start again.
    Reboot,
    /// Back to the factory's settings, keeping who it is.
    Reset,
    /// Forget everything, also who it is.
    Wipe,
    /// Send the log on `dev/{p}/{d}/sys/log` ([`crate::logs`]).
    UploadLogs,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Reboot, Self::Reset, Self::Wipe, Self::UploadLogs];

    /// As it goes out.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Reset => "reset",
            Self::Wipe => "wipe",
            Self::UploadLogs => "upload-logs",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<Self, CommandError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(CommandError::UnknownCommand)
    }
}

/// How far a command is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The device wasn't there.
    Queued,
    /// It went out.
    Sent,
    /// The device is at it.
    Accepted,
    /// The device has done it.
    Done,
    /// The device couldn't.
    Failed,
    /// The device doesn't want to, or doesn't know how.
    Rejected,
    /// The deadline passed without an answer that ends it.
    Expired,
}

impl State {
    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Rejected | Self::Expired)
    }

    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Accepted => "accepted",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }

    /// Whether a device may say so of a command that is in this one. What it says again is no change.
    fn leads_to(self, next: Self) -> bool {
        match self {
            // An answer can come to what was sent before a restart that forgot the sending.
            Self::Queued | Self::Sent => {
                matches!(next, Self::Accepted | Self::Done | Self::Failed | Self::Rejected)
            }
            Self::Accepted => matches!(next, Self::Done | Self::Failed),
            Self::Done | Self::Failed | Self::Rejected | Self::Expired => false,
        }
    }
}

/// A command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// Its number.
    pub id: CommandId,
    /// Whose.
    pub product: ProductKey,
    /// Whose.
    pub device: DeviceName,
    /// What.
    pub kind: Kind,
    /// JSON, as it was given; `null` where nothing was.
    pub arguments: Box<str>,
    /// Milliseconds since 1970 UTC at which it was asked for.
    pub asked_at_ms: u64,
    /// Milliseconds since 1970 UTC until which it is of use.
    pub deadline_ms: u64,
    /// How far it is.
    pub state: State,
    /// Milliseconds since 1970 UTC since when.
    pub state_at_ms: u64,
    /// What the device said to it; up to [`REASON_BYTES_MAX`].
    pub reason: Box<str>,
}

impl Command {
    /// What goes to the device.
    #[must_use]
    pub fn payload(&self) -> String {
        let Self { id, kind, arguments, deadline_ms, .. } = self;
        let (id, command, deadline) = (id.0, kind.as_str(), deadline_ms / 1000);
        format!(r#"{{"id":{id},"command":"{command}","arguments":{arguments},"deadline":{deadline}}}"#)
    }
}

/// Why a command isn't taken, or an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// None of [`Kind::ALL`].
    #[error("commands are reboot, reset, wipe and upload-logs")]
    UnknownCommand,
    /// No JSON, or too much of it.
    #[error("arguments are JSON of up to {ARGUMENTS_BYTES_MAX} bytes")]
    Arguments,
    /// It has passed, or is more than a week away.
    #[error("a deadline is between now and a week from now")]
    Deadline,
    /// [`DEVICE_OPEN_MAX`].
    #[error("the device has {DEVICE_OPEN_MAX} commands before it already")]
    DeviceFull,
    /// [`COMMANDS_MAX`].
    #[error("there are {COMMANDS_MAX} commands already")]
    Full,
    /// The answer is no JSON of the form, or too long.
    #[error("the answer isn't of the form {{\"id\", \"state\", \"reason\"}}")]
    Malformed,
    /// The answer is to nothing that this device was sent.
    #[error("the device has no such command")]
    NoSuchCommand,
    /// The command has ended, or the state can't follow the one that it is in.
    #[error("that can't follow the state that the command is in")]
    NotNow,
}

/// A change of the book, to be committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Create or replace one that hasn't ended.
    Put(Box<Command>),
    /// It has ended.
    End(ProductKey, DeviceName, CommandId),
    /// Numbers up to this one have been given.
    Given(CommandId),
}

#[cfg(test)]
mod tests;
