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

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use turnpike_authz::names::{DeviceName, ProductKey};

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
/// Longer answers aren't looked at.
const REPLY_BYTES_MAX: usize = 1024;

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

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Accepted,
    Done,
    Failed,
    Rejected,
}

#[derive(Deserialize)]
struct Reply {
    id: u32,
    state: Said,
    reason: Option<String>,
}

type Device = (ProductKey, DeviceName);

/// All commands. What is asked for is planned, committed and applied; what a device or the time does to one is in memory at once, and gives the change for the
/// store.
#[derive(Clone, Debug, Default)]
pub struct Book {
    commands: BTreeMap<CommandId, Command>,
    devices: BTreeMap<Device, BTreeSet<CommandId>>,
    /// Deadlines of open ones, and the times at which ended ones are forgotten.
    timers: BTreeSet<(u64, CommandId)>,
    given: u32,
}

impl Book {
    /// A command for a device. Once both changes are committed and applied it is `Queued`; [`Self::came`] gives it to whoever sends.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn plan(
        &self,
        device: (&ProductKey, &DeviceName),
        kind: Kind,
        arguments: Option<&str>,
        deadline_ms: u64,
        now_ms: u64,
    ) -> Result<(CommandId, [Change; 2]), CommandError> {
        let arguments = arguments.unwrap_or("null");
        let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_ok();
        if arguments.len() > ARGUMENTS_BYTES_MAX || !is_json() {
            return Err(CommandError::Arguments);
        }
        if deadline_ms <= now_ms || deadline_ms - now_ms > DEADLINE_MS_MAX {
            return Err(CommandError::Deadline);
        }
        let (product, name) = device;
        if self.open(product, name).count() >= DEVICE_OPEN_MAX {
            return Err(CommandError::DeviceFull);
        }
        if self.commands.len() >= COMMANDS_MAX {
            return Err(CommandError::Full);
        }
        let id = CommandId(self.given.checked_add(1).ok_or(CommandError::Full)?);
        let command = Command {
            id,
            product: product.clone(),
            device: name.clone(),
            kind,
            arguments: arguments.into(),
            asked_at_ms: now_ms,
            deadline_ms,
            state: State::Queued,
            state_at_ms: now_ms,
            reason: "".into(),
        };
        Ok((id, [Change::Given(id), Change::Put(Box::new(command))]))
    }

    /// Applies a change that was planned and committed, or that was read back.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put(command) => self.put(*command),
            Change::End(_, _, id) => self.forget(id),
            Change::Given(id) => self.given = self.given.max(id.0),
        }
    }

    /// The device is there, or a command was just asked for and it is: what is to be sent, the oldest first. Those are `Sent` now. `Accepted` ones are
    /// sent again too: the device may have lost them by a restart.
    pub fn came(&mut self, product: &ProductKey, device: &DeviceName, now_ms: u64) -> Vec<Command> {
        let ids: Vec<_> = self.open(product, device).map(|command| command.id).collect();
        let mut sent = Vec::new();
        for id in ids {
            let Some(command) = self.commands.get_mut(&id).filter(|command| now_ms < command.deadline_ms) else {
                continue;
            };
            if command.state == State::Queued {
                (command.state, command.state_at_ms) = (State::Sent, now_ms);
            }
            sent.push(command.clone());
        }
        sent
    }

    /// A device's answer. Nothing where it says again what it has said.
    ///
    /// # Errors
    /// [`CommandError::Malformed`], [`CommandError::NoSuchCommand`], [`CommandError::NotNow`].
    pub fn answered(
        &mut self,
        product: &ProductKey,
        device: &DeviceName,
        payload: &[u8],
        now_ms: u64,
    ) -> Result<Option<Change>, CommandError> {
        let is_short = payload.len() <= REPLY_BYTES_MAX;
        let reply = is_short.then(|| serde_json::from_slice::<Reply>(payload).ok()).flatten();
        let Reply { id, state, reason } = reply.ok_or(CommandError::Malformed)?;
        let id = CommandId(id);
        let is_its = |command: &&mut Command| command.product == *product && command.device == *device;
        let command = self.commands.get_mut(&id).filter(is_its).ok_or(CommandError::NoSuchCommand)?;
        let next = match state {
            Said::Accepted => State::Accepted,
            Said::Done => State::Done,
            Said::Failed => State::Failed,
            Said::Rejected => State::Rejected,
        };
        if command.state == next {
            return Ok(None);
        }
        if !command.state.leads_to(next) || now_ms >= command.deadline_ms {
            return Err(CommandError::NotNow);
        }
        let reason = reason.unwrap_or_default();
        command.reason = reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default().into();
        Ok(Some(self.moved(id, next, now_ms)))
    }

    /// Commands whose deadline has passed have expired; ended ones that have been kept long enough are forgotten. Up to `limit` at a time: call again while
    /// [`Self::next_due_ms`] has passed. The numbers are of those that expired.
    pub fn due(&mut self, now_ms: u64, limit: usize) -> Vec<(CommandId, Change)> {
        let due: Vec<_> = self.timers.iter().take_while(|(at, _)| *at <= now_ms).take(limit).copied().collect();
        let mut expired = Vec::new();
        for (_, id) in due {
            match self.commands.get(&id).map(|command| command.state.is_end()) {
                Some(false) => expired.push((id, self.moved(id, State::Expired, now_ms))),
                Some(true) | None => self.forget(id),
            }
        }
        expired
    }

    /// Milliseconds since 1970 UTC at which [`Self::due`] has something to do.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The command of a number.
    #[must_use]
    pub fn get(&self, id: CommandId) -> Option<&Command> {
        self.commands.get(&id)
    }

    /// A device's commands, the oldest first.
    pub fn of_device(&self, product: &ProductKey, device: &DeviceName) -> impl Iterator<Item = &Command> {
        let ids = self.devices.get(&(product.clone(), device.clone()));
        ids.into_iter().flatten().filter_map(|id| self.commands.get(id))
    }

    /// A device is gone from the registry: so are its commands, and their records.
    pub fn drop_device(&mut self, product: &ProductKey, device: &DeviceName) -> Vec<Change> {
        let all: Vec<_> = self.of_device(product, device).map(|command| (command.id, command.state)).collect();
        all.iter().for_each(|(id, _)| self.forget(*id));
        let open = all.into_iter().filter(|(_, state)| !state.is_end());
        open.map(|(id, _)| Change::End(product.clone(), device.clone(), id)).collect()
    }

    fn open(&self, product: &ProductKey, device: &DeviceName) -> impl Iterator<Item = &Command> {
        self.of_device(product, device).filter(|command| !command.state.is_end())
    }

    fn put(&mut self, command: Command) {
        self.forget(command.id);
        self.given = self.given.max(command.id.0);
        self.timers.insert((timer(&command), command.id));
        let device = (command.product.clone(), command.device.clone());
        self.devices.entry(device).or_default().insert(command.id);
        self.commands.insert(command.id, command);
    }

    fn forget(&mut self, id: CommandId) {
        let Some(command) = self.commands.remove(&id) else { return };
        self.timers.remove(&(timer(&command), id));
        let device = (command.product, command.device);
        if let Some(ids) = self.devices.get_mut(&device) {
            ids.remove(&id);
            if ids.is_empty() {
                self.devices.remove(&device);
            }
        }
    }

    /// The command is there.
    fn moved(&mut self, id: CommandId, next: State, now_ms: u64) -> Change {
        let command = self.commands.get_mut(&id).expect("whoever moves a command has just seen it");
        self.timers.remove(&(timer(command), id));
        (command.state, command.state_at_ms) = (next, now_ms);
        self.timers.insert((timer(command), id));
        if next.is_end() {
            Change::End(command.product.clone(), command.device.clone(), id)
        } else {
            Change::Put(Box::new(command.clone()))
        }
    }
}

fn timer(command: &Command) -> u64 {
    if command.state.is_end() { command.state_at_ms.saturating_add(KEPT_MS) } else { command.deadline_ms }
}

#[cfg(test)]
mod tests;
