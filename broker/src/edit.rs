//! Changes of the registry, and of users and whom devices are bound to: one commit may have both.

use turnpike_authz::Gatekeeper;
use turnpike_authz::audit::{Described, DescribedPeople, Event, Outcome, Subject, describe, describe_people};
use turnpike_authz::guarded::Guarded;
use turnpike_authz::names::DeviceName;
use turnpike_authz::people;
use turnpike_authz::people::bindings::DeviceKey;
use turnpike_authz::plan::Change;
use turnpike_authz::policy;
use turnpike_core::concern::Concern;
use turnpike_core::durable::Op;

use crate::server::Control;

/// A change.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Of the registry.
    Registry(Change),
    /// Of apps, users, bindings, services.
    People(people::Change),
}

impl From<Change> for Edit {
    fn from(change: Change) -> Self {
        Self::Registry(change)
    }
}

impl From<people::Change> for Edit {
    fn from(change: people::Change) -> Self {
        Self::People(change)
    }
}

impl Edit {
    /// What the store is to be told.
    #[must_use]
    pub fn op(&self) -> Op {
        match self {
            Self::Registry(change) => change.op(),
            Self::People(change) => change.op(),
        }
    }

    /// Makes a committed change visible, and has the sessions that it concerns judged again.
    pub fn apply(self, guarded: &Guarded<Gatekeeper>, control: &Control) {
        let gate = guarded.gate();
        match self {
            Self::Registry(change) => {
                let left_behind = match &change {
                    Change::DeleteDevice(product, device) => {
                        let allowed = gate.registry().allowed(product.as_str());
                        policy::own_filters(product.as_str(), device.as_str(), allowed)
                    }
                    _ => Vec::new(),
                };
                let ended = match &change {
                    Change::DeleteDevice(product, device) => Some(Concern::device(product.as_str(), device.as_str())),
                    Change::DeleteProduct(product) => Some(Concern::Product(product.as_str().into())),
                    _ => None,
                };
                let concerned = change.concerns().map(|(product, device)| (product.clone(), device.cloned()));
                guarded.follow(&change);
                gate.registry().apply(change);
                if let Some((product, device)) = concerned {
                    control.rejudge(product.as_str(), device.as_ref().map(DeviceName::as_str));
                }
                // Whoever gets the name next isn't to find what this device left there, or was owed.
                if let Some(ended) = ended {
                    control.forget_soon(&ended);
                }
                if !left_behind.is_empty() {
                    control.forget_retained(left_behind);
                }
            }
            Self::People(change) => {
                let concerned = change.concerns();
                let disowned = match &change {
                    people::Change::Unbind(device, user) if gate.people().owner(device).as_ref() == Some(user) => {
                        Some(device.clone())
                    }
                    _ => None,
                };
                let mut left_behind: Vec<Box<str>> = match &change {
                    people::Change::DeleteUser(user) => vec![format!("user/{user}/#").into()],
                    _ => Vec::new(),
                };
                gate.people().apply(change);
                concerned.iter().for_each(|concern| control.judge_again(concern));
                if let Some(DeviceKey { product, device }) = disowned {
                    // The next owner is to find nothing of the last one's, and the device to hear nothing from there.
                    let [up, down] =
                        ["up", "down"].map(|way| format!("dev/{product}/{device}/{way}/#").into_boxed_str());
                    control.withdraw(&Concern::device(product.as_str(), device.as_str()), std::slice::from_ref(&down));
                    left_behind.extend([up, down]);
                }
                if !left_behind.is_empty() {
                    control.forget_retained(left_behind);
                }
            }
        }
    }
}

/// What a change will do, in the words of the audit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// Of the registry.
    Registry(Described),
    /// Of apps, users, bindings, services.
    People(DescribedPeople),
}

impl Told {
    /// Describes changes that are committed together.
    #[must_use]
    pub fn of(gate: &Gatekeeper, edits: &[Edit]) -> Vec<Self> {
        let (mut registry, mut people) = (Vec::new(), Vec::new());
        for edit in edits {
            match edit {
                Edit::Registry(change) => registry.push(change.clone()),
                Edit::People(change) => people.push(change.clone()),
            }
        }
        let registry = describe(gate.registry(), &registry).into_iter().map(Self::Registry);
        registry.chain(describe_people(gate.people(), &people).into_iter().map(Self::People)).collect()
    }

    /// Hands over the event that this is, done by somebody.
    pub fn tell<R>(
        &self,
        at_ms: u64,
        who: (Subject<'_>, Option<std::net::SocketAddr>),
        outcome: Outcome,
        to: impl FnOnce(&Event<'_>) -> R,
    ) -> R {
        match self {
            Self::Registry(described) => described.tell(at_ms, who, outcome, to),
            Self::People(described) => described.tell(at_ms, who, outcome, to),
        }
    }
}
