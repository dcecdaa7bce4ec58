//! From the store to the shards, before anything runs.

use std::sync::Arc;

use turnpike_core::clock::Now;
use turnpike_core::durable::{RecoveredSession, Recovery};
use turnpike_core::gate::Gate;
use turnpike_core::message::Message;
use turnpike_core::shard::{Shard, home};
use turnpike_core::shared::Shared;
use turnpike_store::{Store, StoreError};

/// Gives each session to its home shard, retained messages to all, and the registry's records to `registry`.
pub(super) fn recover<G: Gate>(
    store: &mut dyn Store,
    shared: &Shared,
    cores: &mut [Shard<G>],
    registry: &mut dyn FnMut(&[u8], &[u8]),
    now: Now,
) -> Result<(), StoreError> {
    let mut loading = Loading { shared, cores, registry, now, retained_left_out: 0 };
    let summary = store.recover(&mut loading)?;
    let left_out = loading.retained_left_out;
    if left_out > 0 {
        tracing::warn!(left_out, "retained messages are over the limit; they stay in the store, unused");
    }
    shared.continue_from(summary.next_session_key, summary.next_message_id);
    let counts = summary.counts;
    tracing::info!(
        sessions = counts.sessions,
        owed = counts.owed,
        retained = counts.retained,
        registry = counts.registry,
        "recovered"
    );
    Ok(())
}

struct Loading<'a, G> {
    shared: &'a Shared,
    cores: &'a mut [Shard<G>],
    registry: &'a mut dyn FnMut(&[u8], &[u8]),
    now: Now,
    retained_left_out: u64,
}

impl<G: Gate> Recovery for Loading<'_, G> {
    fn session(&mut self, session: RecoveredSession) {
        let shards = u16::try_from(self.cores.len()).expect("made from a u16");
        let home = home(session.record.client.as_str(), shards);
        if let Some(core) = self.cores.get_mut(usize::from(home.0)) {
            core.restore(session, self.now);
        }
    }

    fn retained(&mut self, message: Message) {
        let kept = self.shared.retained.set(Arc::new(message), self.now.unix_s());
        self.retained_left_out += u64::from(kept.is_err());
    }

    fn registry(&mut self, key: &[u8], value: &[u8]) {
        (self.registry)(key, value);
    }
}
