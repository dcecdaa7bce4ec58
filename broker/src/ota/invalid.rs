//! Campaigns that can't be taken up again: their firmware is gone, or their settings aren't what this version takes. A start never fails on them: nothing of
//! them goes out, the log and the API say so, and they may be deleted.

use turnpike_authz::names::ProductKey;
use turnpike_ota::campaign::{Campaign, Life};
use turnpike_ota::ids::{CampaignId, FirmwareId};

use super::record::Wanted;
use super::state::Unknown;
use super::{CampaignRequest, State};

/// A campaign that can't be taken up.
#[derive(Debug)]
pub struct Invalid {
    /// As it was asked for.
    pub request: CampaignRequest,
    /// The seed of its hash.
    pub salt: u64,
    /// How far it had come.
    pub life: Life,
    /// What is wrong with it, in a sentence.
    pub why: String,
}

impl State {
    /// Campaigns that couldn't be taken up, by number.
    pub fn invalid(&self) -> impl Iterator<Item = (CampaignId, &Invalid)> {
        self.invalid.iter().map(|(id, invalid)| (*id, invalid))
    }

    /// A campaign that couldn't be taken up.
    #[must_use]
    pub fn invalid_campaign(&self, id: CampaignId) -> Option<&Invalid> {
        self.invalid.get(&id)
    }

    /// One of those of a product's firmware.
    pub(super) fn invalid_of(&self, product: &ProductKey) -> Option<CampaignId> {
        let is_its = |invalid: &Invalid| {
            self.catalog.get(FirmwareId(invalid.request.firmware)).is_some_and(|firmware| firmware.product == *product)
        };
        self.invalid.iter().find(|(_, invalid)| is_its(invalid)).map(|(id, _)| *id)
    }

    /// A campaign as its record has it, or what is wrong with that.
    pub(super) fn read_campaign(&self, id: CampaignId, wanted: &Wanted, life: &Life) -> Result<Campaign, String> {
        let firmware = FirmwareId(wanted.request.firmware);
        let found = self.catalog.get(firmware).ok_or_else(|| format!("its firmware {firmware} is gone"))?;
        let settings = wanted.request.settings(found, wanted.salt)?;
        Campaign::restored(id, settings, life.clone()).map_err(|faults| Unknown::Faults(faults).to_string())
    }

    /// Keeps a campaign that can't be taken up, and says so.
    pub(super) fn set_aside(&mut self, id: CampaignId, (wanted, life): (Wanted, Life), why: String) {
        tracing::error!(campaign = %id, why, "a campaign can't be taken up: it offers nothing, and may be deleted");
        let Wanted { request, salt } = wanted;
        self.invalid.insert(id, Invalid { request, salt, life, why });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use turnpike_authz::registry::Registry;
    use turnpike_core::clock::Now;
    use turnpike_ota::campaign::State as Stage;
    use turnpike_ota::machine::Standing;
    use turnpike_ota::schedule::Recorded;

    use super::*;

    #[test]
    fn a_campaign_whose_firmware_is_gone_is_set_aside() {
        let wanted = Wanted { request: CampaignRequest::plain("spring", 4), salt: 1 };
        let life = Life {
            state: Stage::Running,
            since_s: 8,
            created_at_s: 7,
            approval: None,
            bounds: vec![u64::MAX],
            begun: 1,
            retrying: false,
        };
        let recorded = Recorded { device: "one".into(), standing: Standing::queued(0), retries: 0 };
        let standings = HashMap::from([(CampaignId(3), vec![recorded])]);
        let mut state = State::default();
        let now = Now { mono_ms: 0, unix_ms: 9000 };
        let left = state.restore(vec![(CampaignId(3), wanted, life)], standings, &Registry::new(), now);
        assert!(left.is_empty(), "it is still there: {left:?}");
        let told: Vec<_> = state.invalid().map(|(id, invalid)| (id, invalid.why.clone())).collect();
        assert_eq!(told, [(CampaignId(3), "its firmware 4 is gone".to_owned())]);
        assert_eq!((state.scheduler.campaigns().count(), state.given), (0, 3));
    }
}
