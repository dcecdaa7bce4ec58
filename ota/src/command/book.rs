//! All commands of all devices.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use turnpike_authz::names::{DeviceName, ProductKey};

use super::{
    ARGUMENTS_BYTES_MAX, Change, Command, CommandError, CommandId, DEADLINE_MS_MAX, Kind, Limits, REASON_BYTES_MAX,
    ReplyError, SENDS_MAX, State,
};
use crate::cut::cut;

/// Longer answers aren't looked at.
const REPLY_BYTES_MAX: usize = 1024;
/// Before a device is looked for again, doubled each time.
const WAIT_MS: u64 = 100;
const WAIT_MS_MAX: u64 = 30_000;
/// A device that is said to have come may have no session yet. One that isn't there at so many looks has gone again: 13 seconds.
const LOOKS_MAX: u8 = 7;

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

/// What a device's answer has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Answered {
    /// It had said so before.
    Again,
    /// The command is in another state now.
    Moved(CommandId, Vec<Change>),
    /// The command has ended otherwise; what the device says is kept, if it is the first that it says since.
    Late(CommandId, Vec<Change>),
}

/// What the time has done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// One that has expired; none where something was forgotten alone.
    pub expired: Option<CommandId>,
    /// To be committed.
    pub changes: Vec<Change>,
}

/// When a device is looked for next, to be sent a command.
#[derive(Clone, Copy, Debug)]
struct Look {
    at_ms: u64,
    looks: u8,
}

/// All commands. What is asked for is planned, committed and applied; what a device, the time or an operator does to one is in memory at once, and gives the changes
/// for the store, which are to be committed in the order in which they were given.
///
/// Sending: [`Self::asked`] and [`Self::came`] say that a device may be there, [`Self::to_send`] gives what to send, and the caller says of each what has come of it by [`Self::sent`] or
/// [`Self::not_heard`].
#[derive(Clone, Debug, Default)]
pub struct Book {
    limits: Limits,
    commands: BTreeMap<CommandId, Command>,
    devices: BTreeMap<Device, BTreeSet<CommandId>>,
    /// Deadlines of open ones, and the times at which ended ones are forgotten.
    timers: BTreeSet<(u64, CommandId)>,
    /// When each ended.
    ended: BTreeSet<(u64, CommandId)>,
    /// Those that are to be sent to a device that may be there.
    owed: BTreeMap<CommandId, Look>,
    looks: BTreeSet<(u64, CommandId)>,
    given: u32,
}

impl Book {
    /// Within these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A command for a device, whose number is taken. Once all changes are committed and applied it is `Queued`, and is to be sent.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn plan(
        &mut self,
        device: (&ProductKey, &DeviceName),
        kind: Kind,
        arguments: Option<&str>,
        deadline_ms: u64,
        now_ms: u64,
    ) -> Result<(CommandId, Vec<Change>), CommandError> {
        let arguments = arguments.unwrap_or("null");
        let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_ok();
        if arguments.len() > ARGUMENTS_BYTES_MAX || !is_json() {
            return Err(CommandError::Arguments);
        }
        if deadline_ms <= now_ms || deadline_ms - now_ms > DEADLINE_MS_MAX {
            return Err(CommandError::Deadline);
        }
        let (product, name) = device;
        if self.open(product, name).count() >= self.limits.device_open {
            return Err(CommandError::DeviceFull { most: self.limits.device_open });
        }
        let mut changes = Vec::new();
        if self.commands.len() >= self.limits.commands {
            let oldest = self.ended.first().and_then(|(_, id)| self.commands.get(id));
            let oldest = oldest.ok_or(CommandError::Full { most: self.limits.commands })?;
            changes.push(forgotten(oldest));
        }
        self.given = self.given.checked_add(1).ok_or(CommandError::NoNumber)?;
        let id = CommandId(self.given);
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
            sends: 0,
            sent_at_ms: None,
            late: None,
        };
        changes.extend([Change::Given(id), Change::Put(Box::new(command))]);
        Ok((id, changes))
    }

    /// Applies a change that was planned and committed, or that was read back.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Put(command) => self.put(*command),
            Change::Forget(_, _, id) => self.forget(id),
            Change::Given(id) => self.given = self.given.max(id.0),
        }
    }

    /// One was asked for just now: it is to be sent, if its device is there. What else the device hasn't answered isn't sent again by that.
    pub fn asked(&mut self, id: CommandId, now_ms: u64) {
        if self.commands.get(&id).is_some_and(|command| command.state == State::Queued) {
            self.look(id, Some(Look { at_ms: now_ms, looks: 0 }));
        }
    }

    /// The device has come. What it hasn't answered is to be sent.
    pub fn came(&mut self, product: &ProductKey, device: &DeviceName, now_ms: u64) {
        let is_wanted = |command: &&Command| {
            let is_unanswered = matches!(command.state, State::Queued | State::Sent);
            is_unanswered && command.sends < SENDS_MAX && now_ms < command.deadline_ms
        };
        let ids: Vec<_> = self.of_device(product, device).filter(is_wanted).map(|command| command.id).collect();
        ids.into_iter().for_each(|id| self.look(id, Some(Look { at_ms: now_ms, looks: 0 })));
    }

    /// Commands to be sent now, up to `limit`, each device's the oldest first; call again while it gives that many. Each is given once; the caller says what has come
    /// of it.
    pub fn to_send(&mut self, now_ms: u64, limit: usize) -> Vec<Command> {
        let due: Vec<_> = self.looks.iter().take_while(|(at, _)| *at <= now_ms).take(limit).copied().collect();
        let mut commands = Vec::with_capacity(due.len());
        for (at_ms, id) in due {
            self.looks.remove(&(at_ms, id));
            let is_wanted = |command: &&Command| !command.state.is_end() && now_ms < command.deadline_ms;
            match self.commands.get(&id).filter(is_wanted) {
                Some(command) => commands.push(command.clone()),
                None => self.look(id, None),
            }
        }
        commands.sort_by(|a, b| (&a.product, &a.device, a.id).cmp(&(&b.product, &b.device, b.id)));
        commands
    }

    /// One went out to its device.
    pub fn sent(&mut self, id: CommandId, now_ms: u64) -> Vec<Change> {
        self.look(id, None);
        let Some(command) = self.commands.get_mut(&id).filter(|command| !command.state.is_end()) else {
            return Vec::new();
        };
        command.sends = command.sends.saturating_add(1);
        command.sent_at_ms = Some(now_ms);
        if command.state == State::Queued {
            (command.state, command.state_at_ms) = (State::Sent, now_ms);
        }
        vec![Change::Put(Box::new(command.clone()))]
    }

    /// One didn't go out. A device that is there is asked again later, and then more and more rarely: it will subscribe. One that isn't is looked for a few times more,
    /// and then when it comes.
    pub fn not_heard(&mut self, id: CommandId, is_there: bool, now_ms: u64) {
        let Some(Look { looks, .. }) = self.owed.get(&id).copied() else { return };
        let looks = looks.saturating_add(1);
        let wait_ms = WAIT_MS.saturating_mul(1 << looks.min(16)).min(WAIT_MS_MAX);
        let again = Look { at_ms: now_ms.saturating_add(wait_ms), looks };
        self.look(id, Some(again).filter(|_| is_there || looks < LOOKS_MAX));
    }

    /// Whoever asked for one doesn't want it any more.
    ///
    /// # Errors
    /// [`CommandError::NoSuchCommand`], [`CommandError::Ended`].
    pub fn cancel(
        &mut self,
        product: &ProductKey,
        device: &DeviceName,
        id: CommandId,
        now_ms: u64,
    ) -> Result<Vec<Change>, CommandError> {
        let found = self.of(product, device, id).ok_or(CommandError::NoSuchCommand)?;
        if found.state.is_end() || now_ms >= found.deadline_ms {
            return Err(CommandError::Ended);
        }
        Ok(self.moved(id, State::Cancelled, now_ms))
    }

    /// A device's answer.
    ///
    /// # Errors
    /// [`ReplyError`].
    pub fn answered(
        &mut self,
        product: &ProductKey,
        device: &DeviceName,
        payload: &[u8],
        now_ms: u64,
    ) -> Result<Answered, ReplyError> {
        let is_short = payload.len() <= REPLY_BYTES_MAX;
        let reply = is_short.then(|| serde_json::from_slice::<Reply>(payload).ok()).flatten();
        let Reply { id, state, reason } = reply.ok_or(ReplyError::Malformed)?;
        let id = CommandId(id);
        let command = self.commands.get_mut(&id).ok_or(ReplyError::Unknown)?;
        if command.product != *product || command.device != *device {
            return Err(ReplyError::OthersCommand);
        }
        let next = match state {
            Said::Accepted => State::Accepted,
            Said::Done => State::Done,
            Said::Failed => State::Failed,
            Said::Rejected => State::Rejected,
        };
        if command.state == next || command.late == Some(next) {
            return Ok(Answered::Again);
        }
        let reason = reason.unwrap_or_default();
        let reason = cut(&reason, REASON_BYTES_MAX);
        if matches!(command.state, State::Expired | State::Cancelled) {
            // That it has begun, and then how it ended.
            if command.late.is_some_and(|late| late != State::Accepted || next == State::Rejected) {
                return Ok(Answered::Late(id, Vec::new()));
            }
            (command.late, command.reason) = (Some(next), reason.into());
            return Ok(Answered::Late(id, vec![Change::Put(Box::new(command.clone()))]));
        }
        if !command.state.leads_to(next) {
            return Err(ReplyError::OutOfPlace);
        }
        if now_ms >= command.deadline_ms {
            // It expires in a moment.
            return Ok(Answered::Late(id, Vec::new()));
        }
        command.reason = reason.into();
        Ok(Answered::Moved(id, self.moved(id, next, now_ms)))
    }

    /// Commands whose deadline has passed have expired; ended ones that have been kept long enough are forgotten. Up to `limit` at a time: call again while it
    /// gives that many.
    pub fn due(&mut self, now_ms: u64, limit: usize) -> Vec<Due> {
        let due: Vec<_> = self.timers.iter().take_while(|(at, _)| *at <= now_ms).take(limit).copied().collect();
        let mut done = Vec::with_capacity(due.len());
        for (_, id) in due {
            let Some(command) = self.commands.get(&id) else { continue };
            if command.state.is_end() {
                let changes = vec![forgotten(command)];
                self.forget(id);
                done.push(Due { expired: None, changes });
            } else {
                done.push(Due { expired: Some(id), changes: self.moved(id, State::Expired, now_ms) });
            }
        }
        done
    }

    /// Milliseconds since 1970 UTC at which [`Self::due`] or [`Self::to_send`] has something to do.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        let first = |set: &BTreeSet<(u64, CommandId)>| set.first().map(|(at, _)| *at);
        first(&self.timers).into_iter().chain(first(&self.looks)).min()
    }

    /// The command of a number.
    #[must_use]
    pub fn get(&self, id: CommandId) -> Option<&Command> {
        self.commands.get(&id)
    }

    /// The command of a number, if it is a device's.
    #[must_use]
    pub fn of(&self, product: &ProductKey, device: &DeviceName, id: CommandId) -> Option<&Command> {
        self.get(id).filter(|command| command.product == *product && command.device == *device)
    }

    /// A device's commands, the oldest first.
    pub fn of_device(&self, product: &ProductKey, device: &DeviceName) -> impl Iterator<Item = &Command> {
        let ids = self.devices.get(&(product.clone(), device.clone()));
        ids.into_iter().flatten().filter_map(|id| self.commands.get(id))
    }

    /// Whether a device has any.
    #[must_use]
    pub fn has(&self, product: &ProductKey, device: &DeviceName) -> bool {
        self.devices.contains_key(&(product.clone(), device.clone()))
    }

    /// How many haven't ended, and how many have.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.commands.len() - self.ended.len(), self.ended.len())
    }

    /// A device is gone from the registry: so are its commands, and their records.
    pub fn drop_device(&mut self, product: &ProductKey, device: &DeviceName) -> Vec<Change> {
        let changes: Vec<_> = self.of_device(product, device).map(forgotten).collect();
        changes.iter().cloned().for_each(|change| self.apply(change));
        changes
    }

    /// The same of many. Looks at every device that has commands.
    pub fn drop_devices(&mut self, is_gone: impl Fn(&ProductKey, &DeviceName) -> bool) -> Vec<Change> {
        let gone = self.devices.iter().filter(|((product, device), _)| is_gone(product, device));
        let gone: Vec<_> = gone.flat_map(|(_, ids)| ids.iter().copied()).collect();
        let changes: Vec<_> = gone.iter().filter_map(|id| self.commands.get(id)).map(forgotten).collect();
        changes.iter().cloned().for_each(|change| self.apply(change));
        changes
    }

    fn open(&self, product: &ProductKey, device: &DeviceName) -> impl Iterator<Item = &Command> {
        self.of_device(product, device).filter(|command| !command.state.is_end())
    }

    fn put(&mut self, command: Command) {
        self.forget(command.id);
        self.given = self.given.max(command.id.0);
        self.timers.insert((self.timer(&command), command.id));
        if command.state.is_end() {
            self.ended.insert((command.state_at_ms, command.id));
        }
        let device = (command.product.clone(), command.device.clone());
        self.devices.entry(device).or_default().insert(command.id);
        self.commands.insert(command.id, command);
    }

    fn forget(&mut self, id: CommandId) {
        self.look(id, None);
        let Some(command) = self.commands.remove(&id) else { return };
        self.timers.remove(&(self.timer(&command), id));
        self.ended.remove(&(command.state_at_ms, id));
        let device = (command.product, command.device);
        if let Some(ids) = self.devices.get_mut(&device) {
            ids.remove(&id);
            if ids.is_empty() {
                self.devices.remove(&device);
            }
        }
    }

    /// The command is there, and hasn't ended. What was kept of the device's oldest one may make room for it.
    fn moved(&mut self, id: CommandId, next: State, now_ms: u64) -> Vec<Change> {
        let mut command = self.commands.get(&id).cloned().expect("whoever moves a command has just seen it");
        (command.state, command.state_at_ms) = (next, now_ms);
        let (product, device) = (command.product.clone(), command.device.clone());
        self.put(command.clone());
        let mut changes = vec![Change::Put(Box::new(command))];
        if !next.is_end() {
            return changes;
        }
        let kept: Vec<_> = self.of_device(&product, &device).filter(|command| command.state.is_end()).collect();
        if kept.len() > self.limits.device_kept {
            let others = kept.into_iter().filter(|command| command.id != id);
            if let Some(oldest) = others.min_by_key(|command| (command.state_at_ms, command.id)).map(forgotten) {
                changes.push(oldest.clone());
                self.apply(oldest);
            }
        }
        changes
    }

    /// When a device is looked for next; none: no more.
    fn look(&mut self, id: CommandId, look: Option<Look>) {
        if let Some(before) = self.owed.remove(&id) {
            self.looks.remove(&(before.at_ms, id));
        }
        if let Some(look) = look {
            self.looks.insert((look.at_ms, id));
            self.owed.insert(id, look);
        }
    }

    fn timer(&self, command: &Command) -> u64 {
        match command.state.is_end() {
            true => command.state_at_ms.saturating_add(self.limits.kept_ms),
            false => command.deadline_ms,
        }
    }
}

fn forgotten(command: &Command) -> Change {
    Change::Forget(command.product.clone(), command.device.clone(), command.id)
}
