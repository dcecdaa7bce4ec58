//! How far a campaign has come.

use super::Settings;

/// Where a campaign is. See the diagram above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nobody is in it yet.
    Draft,
    /// Somebody has to approve.
    AwaitingApproval,
    /// Its start hasn't come.
    Scheduled,
    /// Offers go out.
    Running,
    /// No offers go out; devices that have one go on.
    Paused,
    /// Everybody who hasn't begun to apply is cancelled, and the others may finish.
    Stopping(Why),
    /// Stopped. Final.
    Stopped(Why),
    /// All devices are in a final state. Final, but for a retry of the failed ones.
    Completed,
}

impl State {
    /// It is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Stopped(_) | Self::Completed)
    }

    /// It is on its way or paused: devices that are in its queue are its own.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// Why a campaign has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Somebody wanted it.
    ByHand,
    /// A group (counted from 0) has reached its error threshold.
    Errors {
        /// Which.
        group: u8,
    },
    /// Its end has come.
    Ended,
}

/// Who has approved, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Approval {
    /// An administrator's name.
    pub by: Box<str>,
    /// Seconds since 1970 UTC.
    pub at_s: u64,
}

/// How far a campaign has come: what a record keeps beside the settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Life {
    /// Where it is.
    pub state: State,
    /// Since when, seconds since 1970 UTC.
    pub since_s: u64,
    /// Seconds since 1970 UTC.
    pub created_at_s: u64,
    /// Once somebody has approved.
    pub approval: Option<Approval>,
    /// For each group, the first hash that is beyond it. Empty in a draft.
    pub bounds: Vec<u64>,
    /// How many groups have begun.
    pub begun: u8,
    /// Devices that have failed are being tried again, as an operator wanted.
    pub retrying: bool,
}

/// A command that has no place in a campaign's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is none of that number.
    #[error("there is no such campaign")]
    Unknown,
    /// Not now.
    #[error("that can't be done to a campaign that is {0:?}")]
    State(State),
}

impl Life {
    pub(super) const fn draft(created_at_s: u64) -> Self {
        Self {
            state: State::Draft,
            since_s: created_at_s,
            created_at_s,
            approval: None,
            bounds: Vec::new(),
            begun: 0,
            retrying: false,
        }
    }

    const fn go(&mut self, state: State, now_s: u64) {
        self.state = state;
        self.since_s = now_s;
    }

    /// A draft gets its groups.
    pub(crate) fn submit(&mut self, settings: &Settings, bounds: Vec<u64>, now_s: u64) -> Result<(), Refusal> {
        if self.state != State::Draft {
            return Err(Refusal::State(self.state));
        }
        self.bounds = bounds;
        self.go(if settings.approval { State::AwaitingApproval } else { State::Scheduled }, now_s);
        Ok(())
    }

    pub(crate) fn approve(&mut self, by: &str, now_s: u64) -> Result<(), Refusal> {
        if self.state != State::AwaitingApproval {
            return Err(Refusal::State(self.state));
        }
        self.approval = Some(Approval { by: by.into(), at_s: now_s });
        self.go(State::Scheduled, now_s);
        Ok(())
    }

    pub(crate) fn start(&mut self, now_s: u64) {
        self.begun = 1;
        self.go(State::Running, now_s);
    }

    pub(crate) fn pause(&mut self, now_s: u64) -> Result<(), Refusal> {
        if self.state != State::Running {
            return Err(Refusal::State(self.state));
        }
        self.go(State::Paused, now_s);
        Ok(())
    }

    pub(crate) fn resume(&mut self, now_s: u64) -> Result<(), Refusal> {
        if self.state != State::Paused {
            return Err(Refusal::State(self.state));
        }
        self.go(State::Running, now_s);
        Ok(())
    }

    /// Running again, if it was completed. A paused one stays paused.
    pub(crate) fn retry(&mut self, now_s: u64) -> Result<(), Refusal> {
        match self.state {
            State::Running | State::Paused => {}
            State::Completed => self.go(State::Running, now_s),
            other => return Err(Refusal::State(other)),
        }
        self.retrying = true;
        Ok(())
    }

    /// All have been tried again that were to be.
    pub(crate) const fn retried(&mut self) {
        self.retrying = false;
    }

    pub(crate) fn stop(&mut self, why: Why, now_s: u64) -> Result<(), Refusal> {
        if self.state.is_final() || matches!(self.state, State::Stopping(_)) {
            return Err(Refusal::State(self.state));
        }
        self.retrying = false;
        self.go(State::Stopping(why), now_s);
        Ok(())
    }

    pub(crate) fn stopped(&mut self, why: Why, now_s: u64) {
        self.go(State::Stopped(why), now_s);
    }

    pub(crate) fn complete(&mut self, now_s: u64) {
        self.go(State::Completed, now_s);
    }
}
