//! What devices say, and what they are answered.

use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::oneshot;
use turnpike_authz::desk::Matter;
use turnpike_core::clock::Now;
use turnpike_core::gate::DeviceIdentity;
use turnpike_core::shard::Errand;
use turnpike_mqtt::{ReasonCode, Version};
use turnpike_ota::campaign::Campaign;
use turnpike_ota::ids::FirmwareId;
use turnpike_ota::machine::Reason;
use turnpike_ota::schedule::{Action, Report, ReportError};
use turnpike_ota::target::Target;
use turnpike_ota::wire::aliyun;
use turnpike_ota::wire::native::{Check, Progress};
use turnpike_ota::wire::{Step, Why, WireError};

use super::offers::{message, native, number, offer_topic, upgrade, upgrade_topic};
use super::push::Push;
use super::record::{Reported, Speaks};
use super::state::{Carried, candidate};
use super::{OtaDesk, State, count};
use crate::desk::Done;

/// What a device hears that has come back with the version that it had.
const OLD_VERSION: &str = "came back with the old version";

/// What an errand has come to.
struct Did {
    committed: Option<oneshot::Receiver<()>>,
    messages: Vec<Push>,
}

impl OtaDesk {
    pub(super) fn errand(self: &std::sync::Arc<Self>, matter: Matter, errand: Errand, done: Done) {
        let parts = errand.message.parts();
        let (device, payload, now) = (&*errand.device, parts.payload, done.now());
        if matches!(matter, Matter::AliyunInform | Matter::AliyunGet) {
            // Most of that vendor's SDKs say `_ss=1` and leave it to the server.
            let (product, device) = (&device.product, &device.device);
            let topics = [upgrade_topic(product, device), get_reply_topic(product, device)];
            done.subscribe(topics.map(String::into_boxed_str).into());
        }
        let did = match matter {
            Matter::Check => self.check(device, payload, now),
            Matter::Progress => self.progress(device, payload, now),
            Matter::AliyunInform => self.inform(device, payload, now),
            Matter::AliyunProgress => self.aliyun_progress(device, payload, now),
            Matter::AliyunGet => self.query(device, payload, now),
            Matter::Get => return self.blocks(errand, done),
            // Not this desk's.
            Matter::CommandReply | Matter::Log | Matter::Backfill => return done.say(Ok(())),
        };
        match did {
            Ok(Did { committed, messages }) => {
                self.finish(committed, messages, done);
            }
            Err(error) => {
                self.count_fault(&errand.device.product, &error);
                done.say(refusal(errand.version));
            }
        }
    }

    /// A device is there.
    pub(super) fn came(&self, identity: &DeviceIdentity) {
        let DeviceIdentity { product, device, .. } = identity;
        let now = self.shell().control.now();
        let mut state = self.state.lock();
        *state.here.entry((product.clone(), device.clone())).or_insert(0) += 1;
        let zone = state.report_of(product, device).and_then(|reported| reported.zone);
        let mut actions = self.appeared(&mut state, product, device, now);
        actions.extend(state.scheduler.device_online(product, device, zone, now));
        let carried = self.carry_out(&mut state, once(actions), None, now);
        drop(state);
        self.say(carried.committed, carried.offers);
    }

    /// Whether a connection of a device is there.
    pub(super) fn is_here(&self, product: &str, device: &str) -> bool {
        self.state.lock().here.contains_key(&(product.into(), device.into()))
    }

    /// A connection of a device has ended; another may have come before, or come yet.
    pub(super) fn went(&self, identity: &DeviceIdentity) {
        let key = (identity.product.clone(), identity.device.clone());
        let mut state = self.state.lock();
        let Some(connections) = state.here.get_mut(&key) else { return };
        *connections = connections.saturating_sub(1);
        if *connections == 0 {
            state.here.remove(&key);
            state.scheduler.device_offline(&key.0, &key.1);
        }
    }

    /// A device that is new, or has another version or other labels, may belong in dynamic campaigns.
    pub(super) fn appeared(&self, state: &mut State, product: &str, device: &str, now: Now) -> Vec<Action> {
        let State { scheduler, reported, .. } = state;
        let is_open = |campaign: &Campaign| {
            let settings = campaign.settings();
            settings.dynamic && !campaign.life().state.is_final() && *settings.filter.product == *product
        };
        if !scheduler.campaigns().any(is_open) {
            return Vec::new();
        }
        let registry = &self.shell().registry;
        let Some(found) = registry.device(product, device) else { return Vec::new() };
        let labels = registry.labels(product, device);
        let said = reported.get(product).and_then(|said| said.get(device));
        let whose = (product, device, found.created_at_s);
        scheduler.candidate_appeared(product, |target| candidate(whose, said, target, labels.as_deref()), now)
    }

    fn check(&self, device: &DeviceIdentity, payload: &[u8], now: Now) -> Result<Did, WireError> {
        let Check { id, versions, hardware, zone } = Check::read(payload)?;
        let zone = zone.map(|zone| zone.parse().map_err(|_| WireError::Range { field: "zone" })).transpose()?;
        let (product, name) = (&*device.product, &*device.device);
        let mut state = self.state.lock();
        let before = state.report_of(product, name).cloned().unwrap_or_default();
        let reported = Reported { versions, hardware, zone: zone.or(before.zone), speaks: Speaks::Native };
        let carried = self.reported(&mut state, device, reported, now);
        let whole =
            |state: &State, campaign| state.scheduler.campaign(campaign).map(|campaign| campaign.settings().firmware);
        let failed =
            carried.old_version.and_then(|campaign| whole(&state, campaign)).map(|file| (number(file), OLD_VERSION));
        let mut answered = carried.answer.iter();
        let payload = native(&state, answered.next(), id.clone(), failed);
        // The file can't have gone under the lock; if it isn't ready any more, there is nothing.
        let payload = payload.or_else(|| native(&state, None, id, failed)).unwrap_or_default();
        let mut messages = vec![Push::from(message(offer_topic(product, name), payload, now))];
        messages.extend(answered.filter_map(|other| self.pushed(&state, other, now)));
        drop(state);
        count(&self.counts.checks);
        messages.extend(carried.offers);
        Ok(Did { committed: carried.committed, messages })
    }

    /// What a device has reported of itself: it may have succeeded or failed by that, and it is there.
    pub(super) fn reported(&self, state: &mut State, device: &DeviceIdentity, reported: Reported, now: Now) -> Carried {
        let (product, name) = (&*device.product, &*device.device);
        let (versions, zone) = (reported.versions.clone(), reported.zone);
        let mut ops = state.hold_report(&self.shell().registry, product, name, &reported);
        ops.extend(state.put_report(product, name, reported));
        let mut actions = Vec::new();
        for (target, version) in &versions {
            let report = Report::Version(version.as_str());
            // Of a device without an offer a version is no fault.
            actions.extend(state.scheduler.report(product, name, target, report, now).unwrap_or_default());
        }
        actions.extend(self.appeared(state, product, name, now));
        if state.here.contains_key(&(product.into(), name.into())) {
            actions.extend(state.scheduler.device_online(product, name, zone, now));
        }
        self.carry_out_with(state, once(actions), Some((product, name)), ops, now)
    }

    fn progress(&self, device: &DeviceIdentity, payload: &[u8], now: Now) -> Result<Did, WireError> {
        let Progress { offer, step, why } = Progress::read(payload)?;
        let mut state = self.state.lock();
        let file = FirmwareId(u64::from(offer));
        let target = state
            .campaign_of(&device.product, &device.device, file)
            .and_then(|_| state.catalog.get(file))
            .map(|firmware| firmware.target.clone());
        let Some(target) = target else {
            // It may have been stopped meanwhile: that is no fault of the device's.
            self.count_fault(&device.product, &ReportError::NoOffer);
            return Ok(Did { committed: None, messages: Vec::new() });
        };
        Ok(self.stepped(&mut state, device, &target, (step, why), now))
    }

    fn stepped(
        &self,
        state: &mut State,
        device: &DeviceIdentity,
        target: &Target,
        (step, why): (Step, Option<Why>),
        now: Now,
    ) -> Did {
        let reason = reason(why.as_ref());
        let report = match step {
            Step::Accepted => Report::Accept,
            Step::Downloading(percent) => Report::Progress(percent),
            Step::Downloaded => Report::Downloaded,
            Step::Verified => Report::Verified,
            Step::Applying => Report::Applying,
            Step::Failed { retryable } => Report::Fail { retryable, reason },
            Step::Rejected => Report::Reject(reason),
        };
        match state.scheduler.report(&device.product, &device.device, target, report, now) {
            Ok(actions) => {
                if let Some(Why::Text(text)) = why {
                    tracing::info!(
                        product = &*device.product,
                        reason = &*text,
                        "a device says why it has no new firmware"
                    );
                }
                self.counts.reports.fetch_add(1, Relaxed);
                let carried = self.carry_out(state, actions, None, now);
                Did { committed: carried.committed, messages: carried.offers }
            }
            Err(error) => {
                self.count_fault(&device.product, &error);
                Did { committed: None, messages: Vec::new() }
            }
        }
    }

    fn inform(&self, device: &DeviceIdentity, payload: &[u8], now: Now) -> Result<Did, WireError> {
        let aliyun::Inform { id: _, target, version } = aliyun::Inform::read(payload)?;
        let mut state = self.state.lock();
        let mut reported = state.report_of(&device.product, &device.device).cloned().unwrap_or_default();
        let room = reported.versions.len() < turnpike_ota::wire::VERSIONS_MAX;
        if !room && !reported.versions.contains_key(&target) {
            return Err(WireError::TooManyVersions);
        }
        reported.versions.insert(target, version);
        reported.speaks = Speaks::Aliyun;
        let carried = self.reported(&mut state, device, reported, now);
        count(&self.counts.checks);
        let pushed = carried.answer.iter().filter_map(|outgoing| self.pushed(&state, outgoing, now));
        let messages = pushed.chain(carried.offers).collect();
        Ok(Did { committed: carried.committed, messages })
    }

    fn aliyun_progress(&self, device: &DeviceIdentity, payload: &[u8], now: Now) -> Result<Did, WireError> {
        let aliyun::Progress { id: _, target, step, why } = aliyun::Progress::read(payload)?;
        Ok(self.stepped(&mut self.state.lock(), device, &target, (step, why), now))
    }

    fn query(&self, device: &DeviceIdentity, payload: &[u8], now: Now) -> Result<Did, WireError> {
        let aliyun::Query { id, target } = aliyun::Query::read(payload)?;
        let (product, name) = (&*device.product, &*device.device);
        let mut state = self.state.lock();
        let zone = state.report_of(product, name).and_then(|reported| reported.zone);
        let actions = state.scheduler.device_online(product, name, zone, now);
        let carried = self.carry_out(&mut state, actions, Some((product, name)), now);
        let (asked, others): (Vec<_>, Vec<_>) = carried
            .answer
            .iter()
            .partition(|outgoing| state.catalog.get(outgoing.file).is_some_and(|firmware| firmware.target == target));
        let written =
            asked.first().and_then(|outgoing| upgrade(&state, outgoing, |upgrade| upgrade.reply(id.as_ref())));
        let payload = written.unwrap_or_else(|| aliyun::nothing(id.as_ref()));
        let mut messages = vec![Push::from(message(get_reply_topic(product, name), payload, now))];
        messages.extend(others.into_iter().filter_map(|other| self.pushed(&state, other, now)));
        messages.extend(carried.offers);
        count(&self.counts.checks);
        Ok(Did { committed: carried.committed, messages })
    }
}

fn get_reply_topic(product: &str, device: &str) -> String {
    format!("/sys/{product}/{device}/thing/ota/firmware/get_reply")
}

/// A device of MQTT 3 can't be told why, and would lose its connection.
pub(super) fn refusal(version: Version) -> Result<(), ReasonCode> {
    match version {
        Version::V31 | Version::V311 => Ok(()),
        Version::V5 => Err(ReasonCode::PayloadFormatInvalid),
    }
}

/// What the campaign keeps of it: a text that has no number is in the log.
fn reason(why: Option<&Why>) -> Reason {
    match why {
        None => Reason::NONE,
        Some(why) => why.code().map_or(Reason::OWN, Reason),
    }
}

/// One offer of a campaign to a device is enough, where it has come in and is there.
fn once(actions: Vec<Action>) -> Vec<Action> {
    let mut offered = std::collections::HashSet::new();
    let is_first = |action: &Action| match action {
        Action::Offer { campaign, device, .. } => offered.insert((*campaign, *device)),
        _ => true,
    };
    let mut actions = actions;
    actions.retain(is_first);
    actions
}
