//! Other clouds' part in a start.

use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use anyhow::Context;
use turnpike_authz::Gatekeeper;
use turnpike_authz::gate::Witness;
use turnpike_authz::guarded::Guarded;
use turnpike_authz::platform::{PlatformDecides, Platforms};
use turnpike_authz::secret::MasterKey;
use turnpike_core::clock::Now;

use crate::audit::{Audit, LogInWitness, now_ms};
use crate::config::Config;
use crate::http::platform::{Book, Desk, DeskParts, Door};
use crate::nonces::NonceFiles;
use crate::presence::{Presence, PresenceWitness};
use crate::tls::{Live, TlsError, TlsSettings};

/// What other clouds are about.
pub(super) struct Clouds {
    pub(super) platforms: Arc<Platforms>,
    presence: Arc<Presence>,
    /// None where they have no listener.
    door: Option<Arc<Door>>,
}

impl Clouds {
    /// Reads what their listener needs, and the nonces that were used before this start.
    pub(super) fn prepare(config: &Config, key: MasterKey) -> anyhow::Result<Self> {
        Ok(Self {
            platforms: Arc::new(platforms(config, key)?),
            presence: Arc::new(Presence::new()),
            door: config.platform.as_ref().map(|settings| door(&settings.tls)).transpose()?,
        })
    }

    /// Who hears of each log-in.
    pub(super) fn witness(&self, audit: &Audit) -> Option<Box<dyn Witness>> {
        let audit = audit.is_kept().then(|| Box::new(LogInWitness(audit.sink())) as Box<dyn Witness>);
        if self.door.is_none() {
            return audit;
        }
        Some(Box::new(PresenceWitness { presence: Arc::clone(&self.presence), then: audit }))
    }

    /// Opens their listener, if there is to be one.
    pub(super) fn open(
        &self,
        config: &Config,
        guarded: &Guarded<Gatekeeper>,
        audit: &Audit,
        book: &Book,
    ) -> anyhow::Result<()> {
        let (Some(settings), Some(door)) = (&config.platform, &self.door) else { return Ok(()) };
        let desk = Desk::new(DeskParts {
            book: book.clone(),
            registry: Arc::clone(guarded.gate().registry()),
            presence: Arc::clone(&self.presence),
            users: Arc::new(PlatformDecides),
            control: book.control().clone(),
            audit: audit.sink(),
            audit_required: config.audit.required,
            quotas: Arc::clone(guarded.quotas()),
            guard: Arc::clone(guarded.guard()),
        });
        let address = settings.address;
        let bound =
            door.serve(address, desk).with_context(|| format!("platforms can't be listened to on {address}"))?;
        tracing::info!(name = %"platform", kind = %"https", address = %bound, "listening");
        Ok(())
    }

    /// Reads the listener's files again, and changes nothing yet.
    pub(super) fn reread(&self, config: &Config) -> Result<Reread<'_>, Vec<TlsError>> {
        let wanted = self.door.as_deref().zip(config.platform.as_ref());
        wanted.map(|(door, settings)| Ok((door, door.prepare(&settings.tls)?))).transpose().map(Reread)
    }
}

/// What new handshakes are to use.
pub(super) struct Reread<'a>(Option<(&'a Door, Live)>);

impl Reread<'_> {
    /// They use it from now on.
    pub(super) fn install(self) {
        if let Some((door, live)) = self.0 {
            door.install(live);
        }
    }
}

/// Platforms that know the nonces that were used before this start, and keep those to come; where they have a listener.
fn platforms(config: &Config, key: MasterKey) -> anyhow::Result<Platforms> {
    let Some(settings) = &config.platform else { return Ok(Platforms::new(key, 0)) };
    let folder = config.data.join("platform");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("the folder {} can't be made", folder.display()))?;
    let platforms = Platforms::new(key, settings.nonces_max);
    let (files, records) = NonceFiles::open(&folder, now_ms())
        .with_context(|| format!("used nonces can't be kept in {}", folder.display()))?;
    let restored = platforms.restore_nonces(records, Now { mono_ms: 0, unix_ms: now_ms() });
    if restored.lost > 0 {
        let lost = restored.lost;
        tracing::warn!(
            lost,
            "platform.nonces_max is too low for what was used before; these requests could be used once more"
        );
    }
    Ok(platforms.keeping_nonces(Box::new(files)))
}

fn door(tls: &TlsSettings) -> anyhow::Result<Arc<Door>> {
    let said = |faults: Vec<TlsError>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Door::load(tls).map(Arc::new).map_err(|faults| anyhow::anyhow!("listener `platform`: {}", said(faults)))
}
