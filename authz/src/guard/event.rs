//! What the guard has to tell, for audit, metrics and alarms.

use ipnet::IpNet;

use super::Identity;

/// Why somebody was kept out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BanCause {
    /// Failed log-ins.
    Failures,
    /// By hand.
    Manual,
}

/// Something that an operator may want to know. Names stand in it as they were sent: whoever prints one masks them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecurityEvent {
    /// An address (IPv6: a /64) is shut out at accept.
    Banned {
        /// Which.
        network: IpNet,
        /// Why.
        cause: BanCause,
        /// Milliseconds.
        for_ms: u64,
        /// How many times lately, this one included.
        times: u32,
    },
    /// One identity fails from many addresses. Nothing is refused for it, since that would be what an attacker wants.
    IdentityUnderAttack {
        /// As claimed.
        identity: Identity,
        /// Failures until the alarm.
        failures: u32,
    },
    /// Identities of one product fail, more than any accident makes.
    ProductUnderAttack {
        /// As claimed.
        product: Box<str>,
        /// Failures until the alarm.
        failures: u32,
    },
    /// A client logs in again and again, with right credentials; it is kept out from that address.
    Flapping {
        /// Who.
        identity: Identity,
        /// Where from.
        network: IpNet,
        /// Milliseconds.
        for_ms: u64,
    },
    /// Two places take one identity's session from each other: its credentials are in both.
    CloneSuspected {
        /// Whose.
        identity: Identity,
        /// The last two: who had the session, and who took it.
        networks: [IpNet; 2],
        /// Milliseconds for which the identity is refused; none if the product only wants to know.
        refused_ms: Option<u64>,
    },
    /// A device is connected from two networks at once: its credentials are in both.
    CloneConnected {
        /// Which.
        identity: Identity,
        /// Where the later connection comes from.
        network: IpNet,
        /// Whether that one is refused.
        refused: bool,
    },
    /// An attestation value isn't the registered one: other firmware, or another module.
    AttestationMismatch {
        /// Whose.
        identity: Identity,
        /// Where from.
        network: IpNet,
        /// Milliseconds for which the identity is refused; none if the product only wants to know.
        refused_ms: Option<u64>,
    },
}

impl SecurityEvent {
    /// An identity that is refused everywhere from now on: what it has open is to be closed.
    #[must_use]
    pub fn bars(&self) -> Option<&Identity> {
        match self {
            Self::CloneSuspected { identity, refused_ms: Some(_), .. }
            | Self::AttestationMismatch { identity, refused_ms: Some(_), .. } => Some(identity),
            Self::Banned { .. }
            | Self::IdentityUnderAttack { .. }
            | Self::ProductUnderAttack { .. }
            | Self::Flapping { .. }
            | Self::CloneConnected { .. }
            | Self::CloneSuspected { refused_ms: None, .. }
            | Self::AttestationMismatch { refused_ms: None, .. } => None,
        }
    }

    /// As a label of a metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Banned { .. } => "banned",
            Self::IdentityUnderAttack { .. } => "identity_under_attack",
            Self::ProductUnderAttack { .. } => "product_under_attack",
            Self::Flapping { .. } => "flapping",
            Self::CloneSuspected { .. } => "clone_suspected",
            Self::CloneConnected { .. } => "clone_connected",
            Self::AttestationMismatch { .. } => "attestation_mismatch",
        }
    }
}
