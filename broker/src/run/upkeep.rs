//! What happens to users and bindings by the clock alone: shares and session codes end, log-ins are stored, new places are told of, keys
//! for tokens are fetched again. On a thread of its own.
//!
//! The clock goes on whatever the store does: a share that has ended counts for nothing from that second on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::{Action, Event, Id, Key, Outcome, Subject, Value};
use turnpike_authz::guarded::Guarded;
use turnpike_authz::people::log_ins::NewPlace;
use turnpike_authz::people::{Change, People};

use super::keys;
use crate::audit::{AuditSink, now_ms};
use crate::edit::{Edit, Told};
use crate::erasure::Eraser;
use crate::http::Changing;
use crate::server::{Control, StoreHealth};
use crate::shard::SystemMessage;

/// Shares, codes, users' log-ins and events that one round takes on.
const ROUND: usize = 1000;
/// Users of a deleted app that one commit removes.
const SWEEP_USERS: usize = 100;
/// After so long without a commit others may change things again, who hear from the store themselves.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);

/// What it needs.
pub(super) struct Upkeep {
    pub(super) control: Control,
    pub(super) guarded: Arc<Guarded<Gatekeeper>>,
    pub(super) changing: Changing,
    pub(super) audit: AuditSink,
    pub(super) eraser: Eraser,
}

impl Upkeep {
    /// Begins, until the process ends.
    pub(super) fn start(self) -> anyhow::Result<()> {
        let fetcher = keys::fetcher()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            runtime.block_on(async {
                tokio::join!(
                    self.follow_clock(),
                    self.keep_store(),
                    self.erase(),
                    keys::keep(self.people(), &self.control, &fetcher)
                )
            });
        };
        std::thread::Builder::new().name("upkeep".to_owned()).spawn(work)?;
        Ok(())
    }

    fn people(&self) -> &People {
        self.guarded.gate().people()
    }

    async fn follow_clock(&self) {
        loop {
            let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            for concern in self.people().advance(since.as_secs(), ROUND) {
                self.control.judge_again(&concern);
            }
            // Shares end with whole seconds.
            tokio::time::sleep(Duration::from_secs(1) - Duration::from_nanos(u64::from(since.subsec_nanos()))).await;
        }
    }

    async fn keep_store(&self) {
        for app in self.people().swept_apps() {
            while self.change(|people| people.plan_sweep(&app, SWEEP_USERS)).await {}
        }
        let mut left_out = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.tell_new_places();
            while self.change(|people| people.plan_expire(ROUND)).await {}
            while self.change(|people| people.take_log_ins(ROUND)).await {}
            let now_left_out = self.people().log_ins_left_out();
            if now_left_out > left_out {
                tracing::warn!(left_out = now_left_out - left_out, "log-ins were left out of what is kept of users");
                left_out = now_left_out;
            }
        }
    }

    /// Erases users whose time has come. Beside the rest: shards and store may take their time.
    async fn erase(&self) {
        let mut overdue = HashSet::new();
        loop {
            self.eraser.run_due().await;
            self.eraser.tell_overdue(&mut overdue);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Commits and applies what `plan` says. False if there was nothing to do, or the store takes nothing.
    async fn change(&self, plan: impl FnOnce(&People) -> Vec<Change>) -> bool {
        if self.control.health().store != StoreHealth::Ok {
            return false;
        }
        let mut held = Some(self.changing.lock().await);
        let edits: Vec<Edit> = plan(self.people()).into_iter().map(Edit::from).collect();
        if edits.is_empty() {
            return false;
        }
        for told in Told::of(self.guarded.gate(), &edits) {
            told.tell(now_ms(), (Subject::Broker, None), Outcome::Accepted, |event| self.audit.record(event));
        }
        let mut committed = self.control.commit_registry(edits.iter().map(Edit::op).collect());
        let outcome = match tokio::time::timeout(COMMIT_TIME_MAX, &mut committed).await {
            Ok(outcome) => outcome,
            Err(_) => {
                drop(held.take());
                committed.await
            }
        };
        if outcome.is_err() {
            return false;
        }
        // Log-ins are visible already; by now they may be those of a user who is gone.
        let unseen = edits.into_iter().filter(|edit| !matches!(edit, Edit::People(Change::PutLogIns(..))));
        unseen.for_each(|edit| edit.apply(&self.guarded, &self.control));
        true
    }

    /// Tells users, on their own feeds, and the audit.
    fn tell_new_places(&self) {
        let places = self.people().take_new_places(ROUND);
        for place in &places {
            let details = [
                (Key::Client, Value::Id(Id::from(&place.log_in.client))),
                (Key::Address, Value::Address(place.log_in.address)),
            ];
            let target = Some(Subject::user(&place.user));
            self.audit.record(&Event { target, ..Event::own(now_ms(), Action::NewPlace, &details) });
        }
        let messages: Vec<_> = places.iter().map(message).collect();
        if !messages.is_empty() {
            self.control.publish_system(messages);
        }
    }
}

fn message(place: &NewPlace) -> SystemMessage {
    let payload = json!({
        "at": place.log_in.at_s,
        "address": place.log_in.address.to_string(),
        "client_id": place.log_in.client.as_str(),
        "new_device": place.new_client,
        "new_address": place.new_address,
    });
    SystemMessage {
        topic: format!("user/{}/sys/new_place", place.user),
        payload: payload.to_string().into(),
        retain: false,
    }
}
