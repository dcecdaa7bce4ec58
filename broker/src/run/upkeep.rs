//! What happens to users and bindings by the clock alone: shares and session codes end, log-ins are stored, new places are told of, keys
//! for tokens are fetched again. On a thread of its own.
//!
//! The clock goes on whatever the store does: a share that has ended counts for nothing from that second on.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio::task::JoinSet;
use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::{Action, Event, Id, Key, Outcome, Subject, Value};
use turnpike_authz::guarded::Guarded;
use turnpike_authz::people::apps::KeySource;
use turnpike_authz::people::ids::AppId;
use turnpike_authz::people::jwks::{DOCUMENT_BYTES_MAX, KeySet};
use turnpike_authz::people::log_ins::NewPlace;
use turnpike_authz::people::{Change, People};

use crate::audit::{AuditSink, now_ms};
use crate::edit::{Edit, Told};
use crate::erasure::Eraser;
use crate::fetch::{FetchError, Fetcher, Target};
use crate::http::Changing;
use crate::server::{Control, StoreHealth};
use crate::shard::SystemMessage;

/// Shares, codes, users' log-ins and events that one round takes on.
const ROUND: usize = 1000;
/// Users of a deleted app that one commit removes.
const SWEEP_USERS: usize = 100;
/// After so long without a commit others may change things again, who hear from the store themselves.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(10);
/// How old a set of keys becomes before it is fetched again.
const KEYS_AGE: Duration = Duration::from_secs(300);
/// The first pause after a set of keys could not be fetched; it doubles up to [`KEYS_AGE`].
const KEYS_PAUSE: Duration = Duration::from_secs(5);
/// How long fetching a set may take.
const KEYS_TIME_MAX: Duration = Duration::from_secs(10);
/// Sets fetched at once.
const FETCHES_MAX: usize = 8;

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
        let fetcher = Fetcher::new(DOCUMENT_BYTES_MAX, KEYS_TIME_MAX)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            runtime.block_on(async {
                tokio::join!(self.follow_clock(), self.keep_store(), self.erase(), self.keep_keys(&fetcher))
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

    /// Fetches sets of keys when they are new or old. The last good one stays until there is another.
    async fn keep_keys(&self, fetcher: &Fetcher) {
        let mut known: HashMap<AppId, Kept> = HashMap::new();
        let mut fetching = JoinSet::new();
        loop {
            let sources = self.people().key_sources();
            known.retain(|app, kept| sources.iter().any(|(other, source)| other == app && *source == kept.source));
            for (app, source) in sources {
                let kept = known.entry(app.clone()).or_insert_with(|| Kept::new(source));
                if !kept.busy && kept.due <= Instant::now() && fetching.len() < FETCHES_MAX {
                    kept.busy = true;
                    let (source, fetcher) = (kept.source.clone(), fetcher.clone());
                    fetching.spawn(async move {
                        let found = keys(&source, &fetcher).await;
                        (app, source, found)
                    });
                }
            }
            let second = tokio::time::sleep(Duration::from_secs(1));
            let fetched = tokio::select! {
                Some(fetched) = fetching.join_next(), if !fetching.is_empty() => fetched,
                () = second => continue,
            };
            let Ok((app, source, found)) = fetched else { continue };
            // The app may have gone meanwhile, or have its keys elsewhere by now.
            let is_current = self.people().key_sources().contains(&(app.clone(), source.clone()));
            if let Some(kept) = known.get_mut(&app).filter(|kept| is_current && kept.source == source) {
                kept.done(&app, found.as_ref().err());
                if let Ok(keys) = found {
                    self.people().set_keys(app, keys);
                }
            }
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

/// An app's set of keys, as it was fetched last.
struct Kept {
    source: KeySource,
    due: Instant,
    pause: Duration,
    busy: bool,
}

impl Kept {
    fn new(source: KeySource) -> Self {
        Self { source, due: Instant::now(), pause: KEYS_PAUSE, busy: false }
    }

    fn done(&mut self, app: &AppId, fault: Option<&KeysError>) {
        self.busy = false;
        let age = match fault {
            None => {
                self.pause = KEYS_PAUSE;
                KEYS_AGE
            }
            Some(error) => {
                tracing::warn!(%app, %error, "the keys for an app's tokens can't be fetched; those it has stay");
                let pause = self.pause;
                self.pause = (pause * 2).min(KEYS_AGE);
                pause
            }
        };
        self.due = Instant::now() + age;
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Set(String),
}

async fn keys(source: &KeySource, fetcher: &Fetcher) -> Result<KeySet, KeysError> {
    let document = match source {
        KeySource::Url(url) => fetcher.get(&Target::parse(url)?).await?,
        KeySource::File(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read(Path::new(&*path))).await;
            read.map_err(std::io::Error::other).flatten()?
        }
        KeySource::Document(text) => text.as_bytes().to_vec(),
        KeySource::None => Vec::new(),
    };
    let text = std::str::from_utf8(&document).map_err(|_| KeysError::Set("it is no text".to_owned()))?;
    KeySet::parse(text).map_err(|error| KeysError::Set(error.to_string()))
}

/// A regular file, one byte beyond what a set may have at the most.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut document = Vec::new();
    std::fs::File::open(path)?.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut document)?;
    Ok(document)
}
