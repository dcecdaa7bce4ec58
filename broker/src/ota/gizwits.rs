//! Gizwits' devices: they check over HTTP, and a notice over MQTT makes them check ([`turnpike_ota::wire::gizwits`]).

use tokio::sync::oneshot;
use turnpike_core::gate::DeviceIdentity;
use turnpike_ota::wire::gizwits::{Check, answer};

use super::record::Speaks;
use super::{OtaDesk, count};

impl OtaDesk {
    /// A check of a device that has shown who it is: the answer's body, if there is something for the part, and when what has changed is on disk.
    ///
    /// The hardware that counts is that of the part which the device asked for last.
    pub fn gizwits_check(
        &self,
        product: &str,
        did: &str,
        check: Check,
    ) -> (Option<String>, Option<oneshot::Receiver<()>>) {
        let now = self.shell().control.now();
        let Check { passcode: _, part, hardware, version } = check;
        let mut state = self.state.lock();
        let mut reported = state.report_of(product, did).cloned().unwrap_or_default();
        reported.versions.insert(part.target(), version);
        (reported.hardware, reported.speaks) = (Some(hardware), Speaks::Gizwits);
        let mut carried = self.reported(&mut state, &DeviceIdentity::new(product, did), reported, now);
        // By asking it is there, though it may not have come in over MQTT yet; then it is gone again with the answer.
        if !state.here.contains_key(&(product.into(), did.into())) {
            let actions = state.scheduler.device_online(product, did, None, now);
            let more = self.carry_out(&mut state, actions, Some((product, did)), now);
            state.scheduler.device_offline(product, did);
            carried.committed = more.committed.or(carried.committed);
            carried.answer.extend(more.answer);
            carried.offers.extend(more.offers);
        }
        let target = part.target();
        let is_asked = |file| state.catalog.get(file).is_some_and(|firmware| firmware.target == target);
        let asked = carried.answer.iter().find(|outgoing| is_asked(outgoing.file));
        let body = asked.and_then(|outgoing| {
            let firmware = state.catalog.get(outgoing.file)?;
            let (url, _) = outgoing.url.as_ref().filter(|(url, _)| url.starts_with("http://")).or_else(|| {
                tracing::warn!(
                    "a device of gizwits downloads over plain HTTP alone: ota.address isn't set, or has TLS"
                );
                None
            })?;
            Some(answer(&firmware.version, url))
        });
        let others = carried.answer.iter().filter(|outgoing| !is_asked(outgoing.file));
        let mut messages: Vec<_> = others.filter_map(|other| self.pushed(&state, other, now)).collect();
        drop(state);
        messages.extend(carried.offers);
        count(&self.counts.checks);
        // Whoever asked waits for the same.
        let said = (!messages.is_empty()).then(|| self.shell().control.commit_registry(Vec::new()));
        self.say(said, messages);
        (body, carried.committed)
    }
}
