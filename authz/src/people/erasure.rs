//! Erasure of what is kept of a user: a job that is on record from the moment that somebody asks for it until long after it is done.
//!
//! ```text
//! asked ─▶ waiting ─ begins ─▶ erased (one commit: the user's records, and how many there were)
//!                                 │
//!                                 ▼
//!            sessions and retained messages end ─▶ verified: is anything left?
//!                                 ▲                   │ yes: failed, tried again    │ no
//!                                 └───────────────────┘                             ▼
//!                                                       done: the report, without the user's id
//! ```
//!
//! What is decided is decided here; `turnpike::erasure` does it. The user's id stands in the record until the job is done, since a broker that was
//! killed has to go on; from then on only a masked one does. While the job is open nobody is made anew under that id: what is erased is
//! the old user's.
//!
//! **Invariant:** a job is done only after somebody has looked for each kind of data and found none.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use turnpike_core::mask::Masked;

use super::ids::{AppId, UserId, UserKey};

/// The longest that an erasure may take from when it was asked for, in seconds: seven days.
pub const DUE_MAX_S: u64 = 7 * 24 * 3600;
/// The longest that one may wait before it begins, in seconds: a day before it is due.
pub const WAIT_MAX_S: u64 = DUE_MAX_S - 24 * 3600;
/// Erasures that aren't done.
pub const OPEN_MAX: usize = 10_000;
/// Reports that are kept; the oldest go first.
pub const REPORTS_MAX: usize = 10_000;
/// How long a report is kept, in seconds: 400 days.
pub const REPORT_KEPT_S: u64 = 400 * 24 * 3600;
/// The first pause after an attempt that has left something, in seconds; it doubles.
const PAUSE_S: u64 = 1;
/// The longest pause, in seconds.
const PAUSE_MAX_S: u64 = 3600;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// What is kept of a user.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// All of them. Records count them in this order: new ones go to the end.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is called in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

kinds! {
    /// The user itself.
    Account = "account",
    /// Devices that it is bound to.
    Binding = "bindings",
    /// What others were given of devices that it owns.
    Share = "shares_given",
    /// Session codes.
    Code = "session_codes",
    /// Log-ins.
    LogIn = "log_ins",
    /// Devices logged in from, as its log-ins have them.
    Place = "places",
    /// Sessions, connected or not.
    Session = "sessions",
    /// Messages that wait for them.
    Queued = "queued_messages",
    /// Retained messages of its feed.
    Retained = "retained_messages",
}

const KINDS: usize = Kind::ALL.len();

/// How many of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts([u64; KINDS]);

impl Counts {
    /// How many of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or(0)
    }

    /// So many more of a kind.
    pub fn add(&mut self, kind: Kind, count: usize) {
        if let Some(known) = self.0.get_mut(kind as usize) {
            *known = known.saturating_add(count as u64);
        }
    }

    /// The same with so many of a kind.
    #[must_use]
    pub fn with(mut self, kind: Kind, count: usize) -> Self {
        self.add(kind, count);
        self
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine = mine.saturating_add(theirs));
        self
    }

    /// The first kind of which there is any.
    #[must_use]
    pub fn first(&self) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| self.of(*kind) > 0)
    }

    /// Each kind and its number.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> + '_ {
        Kind::ALL.iter().map(|kind| (*kind, self.of(*kind)))
    }

    pub(super) fn from_numbers(numbers: &[u64]) -> Option<Self> {
        let mut counts = Self::default();
        // Written by a version that knew fewer kinds.
        counts.0.get_mut(..numbers.len())?.copy_from_slice(numbers);
        Some(counts)
    }

    pub(super) fn numbers(&self) -> &[u64] {
        &self.0
    }
}

/// What stays on purpose, and why.
pub const KEPT: &[(&str, &str)] = &[
    (
        "audit",
        "records of the audit name the user until their retention ends (audit.retention_days): they are chained, so that nobody can change what was done",
    ),
    ("report", "this report, with the id masked, for 400 days: that the erasure was done has to be shown"),
    ("guard", "failed log-ins and rates under that name, in memory only, until they are over: minutes to an hour"),
    (
        "messages",
        "messages that the user sent to devices are the devices', carry no name of their sender, and end as those topics' messages do",
    ),
    (
        "store",
        "the store's files in the data folder keep the bytes of what was deleted until they are rewritten, as data that comes in fills them; nothing reads them",
    ),
    (
        "data_keys",
        "keys that other clouds have for their own users (in memory, an hour at the most): those are known by digests, not by this id",
    ),
];

/// A number of an erasure: later ones are larger.
pub type ErasureNumber = u64;

/// Where an erasure stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It begins later.
    Waiting,
    /// It is to be done now.
    Running,
    /// An attempt has left something; there will be another.
    Failing,
    /// Nothing is left.
    Done,
}

impl State {
    /// As it is called in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Failing => "failing",
            Self::Done => "done",
        }
    }
}

/// An erasure, from the request to the report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Erasure {
    /// Of which app.
    pub app: AppId,
    /// Whose data; none once it is done.
    pub user: Option<UserId>,
    /// The user's id, masked.
    pub masked: Box<str>,
    /// Who has asked for it, as the audit names them.
    pub by: Box<str>,
    /// When, seconds since 1970 UTC.
    pub asked_at_s: u64,
    /// From when on it is done, seconds since 1970 UTC.
    pub begins_at_s: u64,
    /// By when it has to be done, seconds since 1970 UTC.
    pub due_at_s: u64,
    /// Attempts that have left something.
    pub failures: u32,
    /// What the last of them has left.
    pub left: Option<Kind>,
    /// When it was done, seconds since 1970 UTC.
    pub done_at_s: Option<u64>,
    /// What was erased.
    pub erased: Counts,
}

/// What is asked of an erasure.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Who asks, as the audit names them.
    pub by: &'a str,
    /// How long it waits, in seconds: up to [`WAIT_MAX_S`].
    pub wait_s: u64,
    /// Within how many seconds it has to be done: up to [`DUE_MAX_S`], and not less than it waits.
    pub due_s: u64,
}

impl Ask<'_> {
    /// Whether it is within its bounds.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.wait_s <= WAIT_MAX_S && self.due_s <= DUE_MAX_S && self.wait_s <= self.due_s
    }
}

impl Erasure {
    pub(super) fn new(user: &UserKey, ask: &Ask<'_>, now_s: u64) -> Self {
        Self {
            app: user.app.clone(),
            user: Some(user.user.clone()),
            masked: Masked(&user.user).to_string().into(),
            by: ask.by.into(),
            asked_at_s: now_s,
            begins_at_s: now_s.saturating_add(ask.wait_s),
            due_at_s: now_s.saturating_add(ask.due_s),
            failures: 0,
            left: None,
            done_at_s: None,
            erased: Counts::default(),
        }
    }

    /// Asked for again: it begins and is due when that says so, if that is sooner.
    pub(super) fn hastened(&self, ask: &Ask<'_>, now_s: u64) -> Self {
        Self {
            begins_at_s: self.begins_at_s.min(now_s.saturating_add(ask.wait_s)),
            due_at_s: self.due_at_s.min(now_s.saturating_add(ask.due_s)),
            ..self.clone()
        }
    }

    /// Whose data; none once it is done.
    #[must_use]
    pub fn user_key(&self) -> Option<UserKey> {
        Some(UserKey { app: self.app.clone(), user: self.user.clone()? })
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self, now_s: u64) -> State {
        match (self.done_at_s, self.failures) {
            (Some(_), _) => State::Done,
            (None, 0) if now_s < self.begins_at_s => State::Waiting,
            (None, 0) => State::Running,
            (None, _) => State::Failing,
        }
    }

    /// Whether it should have been done by now.
    #[must_use]
    pub fn is_overdue(&self, now_s: u64) -> bool {
        self.done_at_s.is_none() && self.due_at_s < now_s
    }

    /// After an attempt: done, if nothing is left; otherwise to be tried again after a pause that doubles from a second to an hour.
    pub(super) fn concluded(&self, left: &Counts, now_s: u64) -> Self {
        match left.first() {
            None => Self { user: None, left: None, done_at_s: Some(now_s), ..self.clone() },
            found => {
                let pause_s = PAUSE_S.checked_shl(self.failures.min(32)).unwrap_or(u64::MAX).min(PAUSE_MAX_S);
                let begins_at_s = now_s.saturating_add(pause_s);
                Self { failures: self.failures.saturating_add(1), left: found, begins_at_s, ..self.clone() }
            }
        }
    }
}

/// How many there are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Begin later.
    pub waiting: u64,
    /// Are being done.
    pub running: u64,
    /// Have left something.
    pub failing: u64,
    /// Should have been done; they are among the others, too.
    pub overdue: u64,
    /// Reports of what was done.
    pub done: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Erasures(RwLock<Tables>);

#[derive(Debug, Default)]
struct Tables {
    all: BTreeMap<ErasureNumber, Arc<Erasure>>,
    /// Those that aren't done, by the user.
    open: BTreeMap<UserKey, ErasureNumber>,
}

impl Erasures {
    pub(super) fn put(&self, number: ErasureNumber, erasure: Erasure) {
        self.delete(number);
        let mut tables = self.0.write();
        if let Some(user) = erasure.user_key() {
            tables.open.insert(user, number);
        }
        tables.all.insert(number, Arc::new(erasure));
    }

    pub(super) fn delete(&self, number: ErasureNumber) {
        let mut tables = self.0.write();
        if let Some(user) = tables.all.remove(&number).and_then(|erasure| erasure.user_key()) {
            tables.open.remove(&user);
        }
    }

    pub(super) fn get(&self, number: ErasureNumber) -> Option<Arc<Erasure>> {
        self.0.read().all.get(&number).cloned()
    }

    pub(super) fn of(&self, user: &UserKey) -> Option<(ErasureNumber, Arc<Erasure>)> {
        let tables = self.0.read();
        let number = *tables.open.get(user)?;
        Some((number, tables.all.get(&number)?.clone()))
    }

    /// Never one that was used before, as long as the clock doesn't go back behind what was forgotten.
    pub(super) fn next_number(&self, now_s: u64) -> ErasureNumber {
        let last = self.0.read().all.last_key_value().map_or(0, |(number, _)| *number);
        now_s.max(last.saturating_add(1))
    }

    pub(super) fn open_count(&self) -> usize {
        self.0.read().open.len()
    }

    /// The newest first.
    pub(super) fn page(
        &self,
        app: &str,
        before: Option<ErasureNumber>,
        limit: usize,
    ) -> Vec<(ErasureNumber, Arc<Erasure>)> {
        let tables = self.0.read();
        let older = tables.all.range(..before.unwrap_or(ErasureNumber::MAX)).rev();
        let of_app = older.filter(|(_, erasure)| erasure.app.as_str() == app);
        of_app.take(limit).map(|(number, erasure)| (*number, Arc::clone(erasure))).collect()
    }

    /// Those that are to be tried now, the oldest first.
    pub(super) fn to_do(&self, now_s: u64, limit: usize) -> Vec<ErasureNumber> {
        let tables = self.0.read();
        let open = tables.open.values().filter_map(|number| Some((*number, tables.all.get(number)?)));
        let mut due: Vec<ErasureNumber> =
            open.filter(|(_, erasure)| erasure.begins_at_s <= now_s).map(|(number, _)| number).collect();
        due.sort_unstable();
        due.truncate(limit);
        due
    }

    pub(super) fn overdue(&self, now_s: u64, limit: usize) -> Vec<(ErasureNumber, Arc<Erasure>)> {
        let tables = self.0.read();
        let open = tables.open.values().filter_map(|number| Some((*number, tables.all.get(number)?.clone())));
        open.filter(|(_, erasure)| erasure.is_overdue(now_s)).take(limit).collect()
    }

    /// Reports that are older than they are kept, or too many.
    pub(super) fn outlived(&self, now_s: u64, limit: usize) -> Vec<ErasureNumber> {
        let tables = self.0.read();
        let done = tables.all.len() - tables.open.len();
        let surplus = done.saturating_sub(REPORTS_MAX);
        let reports = tables.all.iter().filter_map(|(number, erasure)| Some((*number, erasure.done_at_s?)));
        let is_old = |at_s: u64| at_s.saturating_add(REPORT_KEPT_S) <= now_s;
        let outlived = reports.enumerate().filter(|(nth, (_, at_s))| *nth < surplus || is_old(*at_s));
        outlived.take(limit).map(|(_, (number, _))| number).collect()
    }

    pub(super) fn tally(&self, now_s: u64) -> Tally {
        let tables = self.0.read();
        let mut tally = Tally { done: (tables.all.len() - tables.open.len()) as u64, ..Tally::default() };
        for erasure in tables.open.values().filter_map(|number| tables.all.get(number)) {
            match erasure.state(now_s) {
                State::Waiting => tally.waiting += 1,
                State::Running => tally.running += 1,
                State::Failing => tally.failing += 1,
                State::Done => {}
            }
            tally.overdue += u64::from(erasure.is_overdue(now_s));
        }
        tally
    }
}

#[cfg(test)]
mod tests;
