//! Which desk a message goes to.

use std::sync::Arc;

use turnpike_authz::desk::Matter;
use turnpike_core::shard::Errand;

use crate::backfill::Backfill;
use crate::desk::{Desk, Done};
use crate::ota::OtaDesk;

/// The desks that are open.
#[derive(Debug, Default)]
pub struct Desks {
    /// Stored data.
    pub backfill: Option<Arc<Backfill>>,
    /// Firmware.
    pub ota: Option<Arc<OtaDesk>>,
}

impl Desk for Desks {
    fn take(&self, errand: Errand, done: Done) {
        let matter = Matter::of(&errand.device, errand.message.topic().as_str());
        match (matter, &self.backfill, &self.ota) {
            (Some(Matter::Backfill), Some(backfill), _) => backfill.take(errand, done),
            (Some(matter), _, Some(ota)) => ota.take(matter, errand, done),
            // The gate hands over nothing for a desk that isn't there; if it did, the message is refused.
            _ => drop(done),
        }
    }
}
