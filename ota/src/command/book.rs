//! All commands of all devices.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use turnpike_authz::names::{DeviceName, ProductKey};

use super::{
    ARGUMENTS_BYTES_MAX, COMMANDS_MAX, Change, Command, CommandError, CommandId, DEADLINE_MS_MAX, DEVICE_OPEN_MAX,
    KEPT_MS, Kind, REASON_BYTES_MAX, State,
};
use crate::cut::cut;

/// Longer answers aren't looked at.
const REPLY_BYTES_MAX: usize = 1024;

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
        command.reason = cut(&reason, REASON_BYTES_MAX).into();
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
