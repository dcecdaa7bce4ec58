//! Bans by hand, as the store had them at the start.

use std::sync::Arc;

use parking_lot::Mutex;
use turnpike_authz::Gatekeeper;
use turnpike_authz::guard::KeptBan;
use turnpike_authz::guarded::Guarded;
use turnpike_authz::registry::RecordError;

use crate::server::Control;

/// What was found. It is put in force when there is a clock.
#[derive(Clone, Default, Debug)]
pub(super) struct Found(Arc<Mutex<Vec<KeptBan>>>);

impl Found {
    pub(super) fn load(&self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        KeptBan::decode(key, value).map(|ban| self.0.lock().push(ban))
    }

    /// Puts the bans in force that aren't over, closes who has come in meanwhile, and forgets the others.
    pub(super) fn enforce(&self, guarded: &Guarded<Gatekeeper>, control: &Control) {
        let now = control.now();
        let mut over = Vec::new();
        for ban in self.0.lock().drain(..) {
            let left_ms = ban.left_ms(now.unix_ms);
            if left_ms == Some(0) {
                over.push(KeptBan::delete(ban.network));
                continue;
            }
            match guarded.guard().ban(ban.network, &ban.note, left_ms, now) {
                Ok(banned) => control.shut_out(banned),
                Err(error) => tracing::error!(network = %ban.network, %error, "a ban by hand isn't in force any more"),
            }
        }
        if !over.is_empty() {
            drop(control.commit_registry(over));
        }
    }
}
