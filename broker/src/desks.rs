//! Which desk a message goes to.

use std::sync::Arc;

use turnpike_authz::desk::Matter;
use turnpike_core::shard::Errand;

use crate::backfill::Backfill;
use crate::desk::{Desk, Done};

/// The desks that are open.
#[derive(Debug, Default)]
pub struct Desks {
    /// Stored data.
    pub backfill: Option<Arc<Backfill>>,
}

impl Desk for Desks {
    fn take(&self, errand: Errand, done: Done) {
        let matter = Matter::of(&errand.device, errand.message.topic().as_str());
        match (matter, &self.backfill) {
            (Some(Matter::Backfill), Some(backfill)) => backfill.take(errand, done),
            // The gate hands over nothing for a desk that isn't there; if it did, the message is refused.
            _ => drop(done),
        }
    }
}
