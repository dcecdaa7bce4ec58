//! A device's state in a campaign.
//!
//! ```text
//! queued ─▶ offered ─▶ accepted ─▶ downloading(percent) ─▶ downloaded ─▶ verified ─▶ applying ─▶ succeeded
//!   ▲          └───────────┴──────────────┴───────────────────┴────────────┴───────────┘
//!   │                  │                   │                        │               │
//!   └── retry ── failed(retryable), timed out      failed      rejected      cancelled (applying can't be)
//! ```
//!
//! What an event does, by the state that it meets. `=` leaves everything as it is, `!` is [`Impossible`].
//!
//! | event | queued | offered … verified | applying | succeeded, rejected, cancelled, failed for good | failed (retryable), timed out |
//! |---|---|---|---|---|---|
//! | offered | offered | = | = | ! | ! |
//! | accept, progress, downloaded, verified, applying | ! | there, or = if that is back | = | = | = |
//! | reported: the new version | succeeded | succeeded | succeeded | = | = |
//! | reported: another version | = | = | failed, retryable | = | = |
//! | fail | ! | failed | failed | = | = |
//! | reject | ! | rejected | ! | = | = |
//! | timeout | ! | timed out | timed out | = | = |
//! | cancel | cancelled | cancelled | ! | = | = |
//! | retry | ! | ! | ! | ! | queued |
//! | withhold | = | offered: queued, further on = | = | = | = |
//!
//! A device that skips states, as most do, passes through them at once. Messages of devices come twice and late, so what would lead back changes
//! nothing, and neither does a progress that is not above the last one.
//!
//! An offer is withheld that can't be made yet, e.g. since the device hasn't said what hardware it has: it waits in the queue until it says more.
//!
//! **Invariant:** nothing leaves a final state but [`Event::Retry`], and that only one which is retryable; a standing's time never goes back.

#[cfg(test)]
mod tests;

/// Where a device is in a campaign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Its turn hasn't come, or it isn't connected.
    Queued,
    /// It has been sent an offer.
    Offered,
    /// It has said that it will take the offer.
    Accepted,
    /// It downloads; 0 to 100 percent.
    Downloading(u8),
    /// It has all bytes.
    Downloaded,
    /// It has checked digests and signature.
    Verified,
    /// It writes the firmware or boots into it.
    Applying,
    /// It has reported the new version. Final.
    Succeeded,
    /// It has said that it failed, or came back with another version. Final.
    Failed {
        /// It may be tried again.
        retryable: bool,
    },
    /// It, or whoever uses it, doesn't want the firmware. Final.
    Rejected,
    /// It was longer in a state than the campaign allows. Final, retryable.
    TimedOut,
    /// The campaign has stopped before the device began to apply, or somebody has taken the device out. Final.
    Cancelled,
}

/// [`State`] without what is in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "as in `State`")]
#[repr(u8)]
pub enum Kind {
    Queued,
    Offered,
    Accepted,
    Downloading,
    Downloaded,
    Verified,
    Applying,
    Succeeded,
    Failed,
    Rejected,
    TimedOut,
    Cancelled,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Queued,
        Self::Offered,
        Self::Accepted,
        Self::Downloading,
        Self::Downloaded,
        Self::Verified,
        Self::Applying,
        Self::Succeeded,
        Self::Failed,
        Self::Rejected,
        Self::TimedOut,
        Self::Cancelled,
    ];

    /// As the interface for operators says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::Downloading => "downloading",
            Self::Downloaded => "downloaded",
            Self::Verified => "verified",
            Self::Applying => "applying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing but a retry leaves it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self as u8 >= Self::Succeeded as u8
    }

    /// Between the offer and the end: the campaign has the device.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        !matches!(self, Self::Queued) && !self.is_final()
    }
}

impl State {
    /// Without what is in it.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Queued => Kind::Queued,
            Self::Offered => Kind::Offered,
            Self::Accepted => Kind::Accepted,
            Self::Downloading(_) => Kind::Downloading,
            Self::Downloaded => Kind::Downloaded,
            Self::Verified => Kind::Verified,
            Self::Applying => Kind::Applying,
            Self::Succeeded => Kind::Succeeded,
            Self::Failed { .. } => Kind::Failed,
            Self::Rejected => Kind::Rejected,
            Self::TimedOut => Kind::TimedOut,
            Self::Cancelled => Kind::Cancelled,
        }
    }

    /// [`Event::Retry`] leads from it to `queued`.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Failed { retryable: true } | Self::TimedOut)
    }
}

/// Why a device is where it is. Below 1000 the meaning is the same everywhere; what devices say of their own begins there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Reason(pub u16);

impl Reason {
    /// Nothing to say.
    pub const NONE: Self = Self(0);
    /// Failed: it came back with another version than the one that it was to apply.
    pub const OLD_VERSION: Self = Self(1);
    /// Succeeded: it had the version before it was offered it.
    pub const ALREADY: Self = Self(2);
    /// Cancelled: the campaign has stopped.
    pub const STOPPED: Self = Self(3);
    /// Cancelled: the device is gone, or was taken out.
    pub const GONE: Self = Self(4);
    /// Failed: the bytes don't have the digest that the offer says.
    pub const DIGEST: Self = Self(10);
    /// Failed: the signature is wrong.
    pub const SIGNATURE: Self = Self(11);
    /// Failed: the download couldn't be finished.
    pub const DOWNLOAD: Self = Self(12);
    /// Failed: no room.
    pub const SPACE: Self = Self(13);
    /// Failed: writing or booting went wrong.
    pub const APPLY: Self = Self(14);
    /// Rejected: busy.
    pub const BUSY: Self = Self(20);
    /// Rejected: too little charge.
    pub const POWER: Self = Self(21);
    /// Rejected: by whoever uses the device.
    pub const USER: Self = Self(22);
    /// Rejected or failed: not for this device, as far as it knows.
    pub const UNSUITABLE: Self = Self(23);
    /// Queued: the firmware lists hardware, and the device hasn't said what it has.
    pub const HARDWARE_UNKNOWN: Self = Self(24);
    /// Queued: the firmware isn't ready, or not signed as its product has come to demand.
    pub const NOT_READY: Self = Self(25);
    /// Queued: the campaign has windows, which are in the device's zone, and the device hasn't reported anything yet.
    pub const ZONE_UNKNOWN: Self = Self(26);
    /// Timed out: 100 and the number of the state in [`Kind::ALL`] that it was too long in.
    #[must_use]
    pub const fn too_long(kind: Kind) -> Self {
        Self(100 + kind as u16)
    }
    /// The first that means what a product's devices say it means.
    pub const OWN: Self = Self(1000);
}

/// A device's state, since when, and why: 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The state.
    pub state: State,
    /// Why. Of a queued device, why the last try came to nothing, or why it wasn't offered anything.
    pub reason: Reason,
    /// Since when, in seconds since 1970 UTC (until 2106). Progress doesn't move it.
    pub since_s: u32,
}

/// What a device reports that it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Running {
    /// The version that the campaign is to bring.
    New,
    /// Any other.
    Other,
}

/// What happens to a device in a campaign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// An offer goes out.
    Offered,
    /// The device takes it.
    Accept,
    /// The device has so many percent; above 100 is 100.
    Progress(u8),
    /// The device has all bytes.
    Downloaded,
    /// The device has checked them.
    Verified,
    /// The device begins to apply them.
    Applying,
    /// The device says what it runs.
    Reported(Running),
    /// The device has failed.
    Fail {
        /// Another try may do better.
        retryable: bool,
        /// Why.
        reason: Reason,
    },
    /// The device doesn't want it.
    Reject(Reason),
    /// The device was too long in its state.
    Timeout,
    /// The campaign stops, or the device is taken out of it.
    Cancel(Reason),
    /// Once more from the start.
    Retry,
    /// The offer isn't made now: too little is known of the device, or something is to be mended first.
    Withhold(Reason),
}

/// An event that has no place in a state: of a device that was offered nothing, or a command that comes too late.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{event:?} has no place in {from:?}")]
pub struct Impossible {
    /// The state.
    pub from: State,
    /// The event.
    pub event: Event,
}

/// What an event does. `now_s`: seconds since 1970 UTC; a clock that went back counts as one that stood still.
///
/// # Errors
/// [`Impossible`], by the table at the top.
pub fn step(from: Standing, event: Event, now_s: u32) -> Result<Standing, Impossible> {
    match next(from.state, event) {
        Next::Stay => Ok(from),
        // Percent alone: the state has been there since it began.
        Next::Go(state, _) if state.kind() == from.state.kind() => Ok(Standing { state, ..from }),
        Next::Go(state, reason) => {
            let reason = if event == Event::Retry { from.reason } else { reason };
            Ok(Standing { state, reason, since_s: from.since_s.max(now_s) })
        }
        Next::Never => Err(Impossible { from: from.state, event }),
    }
}

enum Next {
    Stay,
    Go(State, Reason),
    Never,
}

fn next(state: State, event: Event) -> Next {
    let kind = state.kind();
    let on_the_way = |to: State| match state {
        State::Queued => Next::Never,
        _ if to.kind() > kind => Next::Go(to, Reason::NONE),
        _ => Next::Stay,
    };
    match event {
        Event::Retry if state.is_retryable() => Next::Go(State::Queued, Reason::NONE),
        Event::Retry => Next::Never,
        Event::Offered if kind == Kind::Queued => Next::Go(State::Offered, Reason::NONE),
        Event::Offered if kind.is_final() => Next::Never,
        Event::Offered => Next::Stay,
        _ if kind.is_final() => Next::Stay,
        Event::Accept => on_the_way(State::Accepted),
        Event::Progress(percent) => match state {
            State::Downloading(before) if percent.min(100) > before => {
                Next::Go(State::Downloading(percent.min(100)), Reason::NONE)
            }
            _ => on_the_way(State::Downloading(percent.min(100))),
        },
        Event::Downloaded => on_the_way(State::Downloaded),
        Event::Verified => on_the_way(State::Verified),
        Event::Applying => on_the_way(State::Applying),
        Event::Reported(Running::New) if kind == Kind::Queued => Next::Go(State::Succeeded, Reason::ALREADY),
        Event::Reported(Running::New) => Next::Go(State::Succeeded, Reason::NONE),
        Event::Reported(Running::Other) if kind == Kind::Applying => {
            Next::Go(State::Failed { retryable: true }, Reason::OLD_VERSION)
        }
        Event::Reported(Running::Other) => Next::Stay,
        Event::Withhold(reason) if kind == Kind::Offered => Next::Go(State::Queued, reason),
        Event::Withhold(_) => Next::Stay,
        Event::Cancel(_) if kind == Kind::Applying => Next::Never,
        Event::Cancel(reason) => Next::Go(State::Cancelled, reason),
        Event::Fail { .. } | Event::Reject(_) | Event::Timeout if kind == Kind::Queued => Next::Never,
        Event::Fail { retryable, reason } => Next::Go(State::Failed { retryable }, reason),
        Event::Reject(_) if kind == Kind::Applying => Next::Never,
        Event::Reject(reason) => Next::Go(State::Rejected, reason),
        Event::Timeout => Next::Go(State::TimedOut, Reason::too_long(kind)),
    }
}

impl Standing {
    /// In the queue, and not to be offered anything before the device says more.
    #[must_use]
    pub fn is_withheld(self) -> bool {
        self.state == State::Queued && matches!(self.reason, Reason::HARDWARE_UNKNOWN | Reason::NOT_READY)
    }

    /// In the queue since `since_s`.
    #[must_use]
    pub const fn queued(since_s: u32) -> Self {
        Self { state: State::Queued, reason: Reason::NONE, since_s }
    }

    /// For a record: the number of the kind, percent or retryable, the reason and the time big-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        let detail = match self.state {
            State::Downloading(percent) => percent,
            State::Failed { retryable } => u8::from(retryable),
            _ => 0,
        };
        let [r0, r1] = self.reason.0.to_be_bytes();
        let [t0, t1, t2, t3] = self.since_s.to_be_bytes();
        [self.state.kind() as u8, detail, r0, r1, t0, t1, t2, t3]
    }

    /// From a record. None if no standing gives these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        let [kind, detail, r0, r1, t0, t1, t2, t3] = bytes;
        let state = match (*Kind::ALL.get(usize::from(kind))?, detail) {
            (Kind::Downloading, percent @ 0..=100) => State::Downloading(percent),
            (Kind::Failed, 0 | 1) => State::Failed { retryable: detail == 1 },
            (Kind::Queued, 0) => State::Queued,
            (Kind::Offered, 0) => State::Offered,
            (Kind::Accepted, 0) => State::Accepted,
            (Kind::Downloaded, 0) => State::Downloaded,
            (Kind::Verified, 0) => State::Verified,
            (Kind::Applying, 0) => State::Applying,
            (Kind::Succeeded, 0) => State::Succeeded,
            (Kind::Rejected, 0) => State::Rejected,
            (Kind::TimedOut, 0) => State::TimedOut,
            (Kind::Cancelled, 0) => State::Cancelled,
            _ => return None,
        };
        let reason = Reason(u16::from_be_bytes([r0, r1]));
        Some(Self { state, reason, since_s: u32::from_be_bytes([t0, t1, t2, t3]) })
    }
}

/// How long a device may be in each state, in seconds, 1 to [`Limits::SECONDS_MAX`]. What goes beyond is [`Event::Timeout`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// From the offer to an answer.
    pub offered_s: u32,
    /// From the answer to the first progress.
    pub accepted_s: u32,
    /// The whole download, interruptions included.
    pub downloading_s: u32,
    /// From the last byte to the check of it.
    pub downloaded_s: u32,
    /// From the check to the begin of applying: a device may wait for its user.
    pub verified_s: u32,
    /// From the begin of applying to the version after the boot.
    pub applying_s: u32,
}

impl Limits {
    /// 30 days.
    pub const SECONDS_MAX: u32 = 30 * 24 * 3600;

    /// The states that have a limit, in order.
    pub const KINDS: [Kind; 6] =
        [Kind::Offered, Kind::Accepted, Kind::Downloading, Kind::Downloaded, Kind::Verified, Kind::Applying];

    /// Seconds that a device may be in a state. None: as long as it likes.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> Option<u32> {
        match kind {
            Kind::Offered => Some(self.offered_s),
            Kind::Accepted => Some(self.accepted_s),
            Kind::Downloading => Some(self.downloading_s),
            Kind::Downloaded => Some(self.downloaded_s),
            Kind::Verified => Some(self.verified_s),
            Kind::Applying => Some(self.applying_s),
            _ => None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        const HOUR: u32 = 3600;
        Self {
            offered_s: 24 * HOUR,
            accepted_s: HOUR,
            downloading_s: 24 * HOUR,
            downloaded_s: HOUR,
            verified_s: 24 * HOUR,
            applying_s: HOUR,
        }
    }
}
