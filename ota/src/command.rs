//! Commands beside firmware: reboot, reset, wipe, upload-logs; each a request that is followed to its end.
//!
//! ```text
//! Queued ─▶ Sent ─▶ Accepted ─▶ Done │ Failed
//!    │        └─────▶ Done │ Failed │ Rejected
//!    └───────────────▶ Expired │ Cancelled  (from each but the last ones)
//! ```
//!
//! A command goes out on `dev/{p}/{d}/sys/cmd` once the device is there and has subscribed. If it comes back without having answered, it goes out again,
//! [`SENDS_MAX`] times in all: what was lost on the way is made up for, and a device that reboots before it has answered isn't rebooted for ever. So a device may
//! hear one twice, and tells by the `id` that it is the same:
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
//! One that the device has accepted isn't sent again: it is the device's now. What is under way can't be called back: a device may still do what was cancelled or has
//! expired meanwhile. What it says then is kept beside the state ([`Command::late`]), and doesn't change it.
//!
//! An ended one is kept for [`Limits::kept_ms`] to be read, in the store too; fewer of each device, and fewer in all, where there are many.

use turnpike_authz::names::{DeviceName, ProductKey};

mod book;

pub use book::{Answered, Book, Due};

/// Bytes of the arguments as JSON.
pub const ARGUMENTS_BYTES_MAX: usize = 4096;
/// Bytes of a reason; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 256;
/// Milliseconds until the deadline, at the most: a week.
pub const DEADLINE_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// How often one goes out that isn't answered.
pub const SENDS_MAX: u8 = 3;

/// How many there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Commands of one device that haven't ended.
    pub device_open: usize,
    /// Commands of one device that have ended; those beyond are forgotten, the oldest first.
    pub device_kept: usize,
    /// Commands in all; to make room, ended ones are forgotten, the oldest first.
    pub commands: usize,
    /// Milliseconds for which an ended one can be read.
    pub kept_ms: u64,
}

impl Default for Limits {
    /// 16 open and 32 ended ones of a device, 100,000 in all, a week.
    fn default() -> Self {
        Self { device_open: 16, device_kept: 32, commands: 100_000, kept_ms: 7 * 24 * 3_600_000 }
    }
}

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
    /// Whoever asked for it doesn't want it any more.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Sent,
        Self::Accepted,
        Self::Done,
        Self::Failed,
        Self::Rejected,
        Self::Expired,
        Self::Cancelled,
    ];

    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_end(self) -> bool {
        match self {
            Self::Queued | Self::Sent | Self::Accepted => false,
            Self::Done | Self::Failed | Self::Rejected | Self::Expired | Self::Cancelled => true,
        }
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
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether a device may say so of a command that is in this one. What it says again is no change.
    fn leads_to(self, next: Self) -> bool {
        match self {
            // An answer can come before it is known here that it went out.
            Self::Queued | Self::Sent => {
                matches!(next, Self::Accepted | Self::Done | Self::Failed | Self::Rejected)
            }
            Self::Accepted => matches!(next, Self::Done | Self::Failed),
            Self::Done | Self::Failed | Self::Rejected | Self::Expired | Self::Cancelled => false,
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
    /// How often it went out.
    pub sends: u8,
    /// Milliseconds since 1970 UTC at which it went out last.
    pub sent_at_ms: Option<u64>,
    /// What the device said to it after it had expired or was cancelled: that it had begun, or how it ended.
    pub late: Option<State>,
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
    /// [`Limits::device_open`].
    #[error("the device has {most} commands before it already")]
    DeviceFull {
        /// How many it may have.
        most: usize,
    },
    /// [`Limits::commands`], none of which has ended.
    #[error("there are {most} commands already that haven't ended")]
    Full {
        /// How many there may be.
        most: usize,
    },
    /// All numbers have been given.
    #[error("there are no numbers left for commands")]
    NoNumber,
    /// There is none of that number, or it is another device's.
    #[error("the device has no such command")]
    NoSuchCommand,
    /// It has ended.
    #[error("the command has ended")]
    Ended,
}

/// Why a device's answer is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplyError {
    /// It is no JSON of the form, or too long.
    #[error("the answer isn't of the form {{\"id\", \"state\", \"reason\"}}")]
    Malformed,
    /// No command has that number, or none has it any more.
    #[error("there is no command of that number")]
    Unknown,
    /// Another device was asked.
    #[error("the command is another device's")]
    OthersCommand,
    /// The state can't follow the one that the command is in.
    #[error("that can't follow the state that the command is in")]
    OutOfPlace,
}

impl ReplyError {
    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "reply_malformed",
            Self::Unknown => "reply_unknown",
            Self::OthersCommand => "reply_to_others",
            Self::OutOfPlace => "reply_out_of_place",
        }
    }
}

/// A change of the book, to be committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Create or replace.
    Put(Box<Command>),
    /// Nothing is kept of it any more.
    Forget(ProductKey, DeviceName, CommandId),
    /// Numbers up to this one have been given.
    Given(CommandId),
}

#[cfg(test)]
mod tests;
