//! Which desk a message goes to, and who at the desks hears of comings and goings.

use std::sync::Arc;

use turnpike_authz::desk::Matter;
use turnpike_authz::gate::Witness;
use turnpike_authz::people::bindings::DeviceKey;
use turnpike_core::clock::Now;
use turnpike_core::gate::{Passage, Principal, Visit};
use turnpike_core::shard::Errand;

use crate::backfill::Backfill;
use crate::commands::CommandDesk;
use crate::desk::{Desk, Done};
use crate::ota::OtaDesk;

/// The desks that are open.
#[derive(Clone, Debug, Default)]
pub struct Desks {
    /// Stored data.
    pub backfill: Option<Arc<Backfill>>,
    /// Firmware.
    pub ota: Option<Arc<OtaDesk>>,
    /// Commands.
    pub commands: Option<Arc<CommandDesk>>,
}

impl Desks {
    /// As the gate is told of them.
    #[must_use]
    pub fn open(&self) -> turnpike_authz::desk::Desks {
        turnpike_authz::desk::Desks {
            backfill: self.backfill.is_some(),
            ota: self.ota.is_some(),
            commands: self.commands.is_some(),
        }
    }
}

impl Desk for Desks {
    fn take(&self, errand: Errand, done: Done) {
        let matter = Matter::of(&errand.device, errand.message.topic().as_str());
        match (matter, &self.backfill, &self.ota, &self.commands) {
            (Some(Matter::Backfill), Some(backfill), _, _) => backfill.take(errand, done),
            (Some(matter @ (Matter::CommandReply | Matter::Log)), _, _, Some(commands)) => {
                commands.take(matter, errand, done);
            }
            (Some(Matter::Backfill | Matter::CommandReply | Matter::Log), ..) => drop(done),
            (Some(matter), _, Some(ota), _) => ota.take(matter, errand, done),
            // The gate hands over nothing for a desk that isn't there; if it did, the message is refused.
            _ => drop(done),
        }
    }
}

/// Hears of comings and goings for the desks, and passes them on.
#[derive(Debug)]
pub struct DeskWitness {
    /// Who hears of them.
    pub desks: Desks,
    /// Who else does.
    pub then: Option<Box<dyn Witness>>,
}

impl Witness for DeskWitness {
    fn passed(&self, visit: &Visit<'_>, passage: Passage, now: Now) {
        self.desks.ota.iter().for_each(|desk| desk.passed(visit, passage));
        self.desks.commands.iter().for_each(|desk| desk.passed(visit, passage));
        self.then.iter().for_each(|then| then.passed(visit, passage, now));
    }

    fn controlled(&self, service: &Principal, device: &DeviceKey, now: Now) {
        self.then.iter().for_each(|then| then.controlled(service, device, now));
    }
}
