//! Erasures of users, done: what [`turnpike_authz::people::erasure`] decides, with the store, the shards and the retained messages.
//!
//! By one at a time, whoever asks: the API for what is deleted at once, the upkeep for what is due. Each step may be done again: a broker that is
//! killed between two of them does the job from its beginning, and finds less.

use std::sync::Arc;
use std::time::Duration;

use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::{DescribedPeople, Outcome, Subject};
use turnpike_authz::guarded::Guarded;
use turnpike_authz::people::erasure::{Counts, Erasure, ErasureNumber, Kind, OPEN_MAX, State};
use turnpike_authz::people::ids::UserKey;
use turnpike_authz::people::{Change, People};
use turnpike_core::concern::Concern;
use turnpike_core::durable::Op;
use turnpike_core::gate::Principal;

use crate::audit::{AuditSink, now_ms};
use crate::edit::{Edit, Told};
use crate::http::Changing;
use crate::server::{Control, StoreHealth};

/// How long a commit, or the shards, may take before an attempt is given up.
const STEP_TIME_MAX: Duration = Duration::from_secs(10);
/// Looks after retained messages that the shards are removing, and the pause between two.
const LOOKS: u32 = 100;
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Retained messages of a user that are removed in one attempt; what is beyond is left to the next.
const RETAINED_MAX: usize = 100_000;
/// Jobs of one round, and reports forgotten in it.
const ROUND: usize = 100;

/// Does them. Cheap to clone.
#[derive(Clone)]
pub struct Eraser(Arc<Parts>);

struct Parts {
    control: Control,
    guarded: Arc<Guarded<Gatekeeper>>,
    changing: Changing,
    audit: AuditSink,
    /// One at a time.
    busy: tokio::sync::Mutex<()>,
}

/// The store takes nothing at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NotCommitted;

impl Eraser {
    /// With these; `changing` is held while records change.
    #[must_use]
    pub fn new(control: Control, guarded: Arc<Guarded<Gatekeeper>>, changing: Changing, audit: AuditSink) -> Self {
        Self(Arc::new(Parts { control, guarded, changing, audit, busy: tokio::sync::Mutex::default() }))
    }

    fn people(&self) -> &People {
        self.0.guarded.gate().people()
    }

    /// Tries one, if it isn't done, and gives what has come of it. The caller holds no lock. A pause after a failure is the caller's to
    /// keep.
    pub async fn run(&self, number: ErasureNumber) -> Option<Arc<Erasure>> {
        let _busy = self.0.busy.lock().await;
        let user = self.people().erasure(number)?.user_key();
        if let Some(user) = user
            && self.attempt(number, &user).await == Err(NotCommitted)
        {
            tracing::warn!(number, "an erasure has to wait: the store doesn't take changes");
        }
        self.people().erasure(number)
    }

    /// Tries those that are due, and forgets reports that have been kept long enough.
    pub async fn run_due(&self) {
        if self.0.control.health().store != StoreHealth::Ok {
            return;
        }
        for number in self.people().erasures_to_do(now_s(), ROUND) {
            let Some(erasure) = self.run(number).await else { continue };
            if erasure.state(now_s()) == State::Failing {
                let left = erasure.left.map_or("", Kind::as_str);
                tracing::warn!(number, failures = erasure.failures, left, "an erasure has left something");
            }
        }
        let forgotten = self.commit(Vec::new(), |people| people.plan_forget_reports(now_s(), ROUND)).await;
        if forgotten == Err(NotCommitted) {
            tracing::warn!("old reports of erasures can't be forgotten: the store doesn't take changes");
        }
    }

    /// Raises an alarm for those that should have been done, and aren't in `known`, which is brought up to date.
    pub fn tell_overdue(&self, known: &mut std::collections::HashSet<ErasureNumber>) {
        let overdue = self.people().erasures_overdue(now_s(), OPEN_MAX);
        known.retain(|number| overdue.iter().any(|(other, _)| other == number));
        for (number, erasure) in overdue {
            if known.insert(number) {
                tracing::error!(number, due_at = erasure.due_at_s, "an erasure is overdue");
                let told = DescribedPeople::overdue(number, &erasure);
                told.tell(now_ms(), (Subject::Broker, None), Outcome::Failed("overdue"), |event| {
                    self.0.audit.record(event);
                });
            }
        }
    }

    async fn attempt(&self, number: ErasureNumber, user: &UserKey) -> Result<(), NotCommitted> {
        let topics = self.retained(user);
        let seen = self.sessions(user).await.unwrap_or_default().with(Kind::Retained, topics.len());
        self.commit(Vec::new(), |people| people.plan_erase(number, &seen)).await?;
        let concern = Concern::user(user.app.as_str(), user.user.as_str());
        let ended = tokio::time::timeout(STEP_TIME_MAX, self.0.control.forget(&concern)).await.is_ok();
        if !topics.is_empty() {
            self.0.control.forget_retained(vec![feed(user)]);
        }
        let mut left = self.left(user).await;
        for _ in 0..LOOKS {
            if !ended || left.of(Kind::Retained) == 0 {
                break;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            left = self.left(user).await;
        }
        // In the commit that says so, too: a crash must not bring back what the shards have removed and not committed.
        let removed = topics.into_iter().map(Op::RetainedDelete).collect();
        self.commit(removed, |people| people.plan_conclude(number, &left, now_s()).into_iter().collect()).await
    }

    /// What is left outside the records. Shards that don't answer have something left.
    async fn left(&self, user: &UserKey) -> Counts {
        let silent = || Counts::default().with(Kind::Session, 1);
        let sessions = self.sessions(user).await.unwrap_or_else(silent);
        sessions.with(Kind::Retained, self.retained(user).len())
    }

    async fn sessions(&self, user: &UserKey) -> Option<Counts> {
        let concern = Concern::user(user.app.as_str(), user.user.as_str());
        let Concern::Principal(principal @ Principal::User(_)) = concern else { return None };
        let found = tokio::time::timeout(STEP_TIME_MAX, self.0.control.sessions_of(&principal)).await.ok()?;
        let queued = found.iter().map(|session| session.queued).sum();
        Some(Counts::default().with(Kind::Session, found.len()).with(Kind::Queued, queued))
    }

    fn retained(&self, user: &UserKey) -> Vec<Box<str>> {
        self.0.control.retained_topics(&feed(user), RETAINED_MAX)
    }

    /// Commits and applies what `plan` says, and `besides` with it; if there is nothing planned, nothing.
    async fn commit(&self, besides: Vec<Op>, plan: impl FnOnce(&People) -> Vec<Change>) -> Result<(), NotCommitted> {
        let parts = &self.0;
        let held = parts.changing.lock().await;
        let edits: Vec<Edit> = plan(self.people()).into_iter().map(Edit::from).collect();
        if edits.is_empty() {
            return Ok(());
        }
        let told = Told::of(parts.guarded.gate(), &edits);
        let record = |told: &Told| {
            told.tell(now_ms(), (Subject::Broker, None), Outcome::Accepted, |event| parts.audit.record_durable(event))
        };
        // All of them first: they share an fsync.
        let written: Vec<_> = told.iter().map(record).collect();
        for written in written {
            // That it was asked for is on record; a duty with a term doesn't wait for the audit to be well.
            if !matches!(tokio::time::timeout(STEP_TIME_MAX, written).await, Ok(Ok(()))) {
                tracing::warn!("a step of an erasure is done that isn't on record");
                break;
            }
        }
        let ops = edits.iter().map(Edit::op).chain(besides).collect();
        let mut committed = parts.control.commit_registry(ops);
        let apply = move |parts: &Parts| edits.into_iter().for_each(|edit| edit.apply(&parts.guarded, &parts.control));
        match tokio::time::timeout(STEP_TIME_MAX, &mut committed).await {
            Ok(Ok(())) => {
                apply(parts);
                Ok(())
            }
            Ok(Err(_)) => Err(NotCommitted),
            Err(_) => {
                // Nothing is confirmed; but if it does reach the disk, memory has to follow. Others hear from the store themselves.
                drop(held);
                let parts = Arc::clone(parts);
                tokio::spawn(async move {
                    if committed.await.is_ok() {
                        apply(&parts);
                    }
                });
                Err(NotCommitted)
            }
        }
    }
}

/// A user's topics.
fn feed(user: &UserKey) -> Box<str> {
    format!("user/{user}/#").into()
}

fn now_s() -> u64 {
    now_ms() / 1000
}
