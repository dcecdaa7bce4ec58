//! What the tests of shards have in common.

use std::sync::Arc;

use super::{Gate, Peer, Setup, Shard};
use crate::clock::Now;
use crate::ids::ShardId;
use crate::limits::Limits;
use crate::shared::Shared;

/// In an `impl Gate` of a test: who is in may do everything, for ever.
macro_rules! everything_is_allowed {
    () => {
        fn may_publish(&self, _: &$crate::gate::Principal, _: ::turnpike_mqtt::TopicName<'_>) -> bool {
            true
        }

        fn may_subscribe(&self, _: &$crate::gate::Principal, _: ::turnpike_mqtt::TopicFilter<'_>) -> bool {
            true
        }

        fn still_welcome(&self, _: &$crate::gate::Principal) -> bool {
            true
        }
    };
}
pub(crate) use everything_is_allowed;

/// In an `impl Gate` of a test: nobody is challenged.
macro_rules! nobody_is_challenged {
    () => {
        fn proceed(
            &self,
            _: &$crate::gate::Attempt<'_>,
            _: &$crate::gate::ChallengeState,
            _: &[u8],
            _: $crate::clock::Now,
        ) -> $crate::gate::Verdict {
            $crate::gate::Verdict::Refused(::turnpike_mqtt::ConnectReason::BadAuthenticationMethod, "refused")
        }
    };
}
pub(crate) use nobody_is_challenged;

/// The only shard of a broker, whose randomness is sevens.
pub(crate) fn alone<G: Gate>(gate: &Arc<G>, limits: Limits, now: Now) -> Shard<G> {
    Shard::new(setup(gate, limits, now))
}

/// How [`alone`] makes it.
pub(crate) fn setup<G: Gate>(gate: &Arc<G>, limits: Limits, now: Now) -> Setup<G> {
    Setup {
        id: ShardId(0),
        shards: 1,
        shared: Arc::new(Shared::new(&limits)),
        gate: Arc::clone(gate),
        limits: Arc::new(limits),
        entropy: Box::new(|bytes| bytes.fill(7)),
        now,
    }
}

/// The shards of a broker, and what they share.
pub(crate) fn several<G: Gate>(count: u16, gate: &Arc<G>, limits: Limits, now: Now) -> (Vec<Shard<G>>, Arc<Shared>) {
    let (shared, limits) = (Arc::new(Shared::new(&limits)), Arc::new(limits));
    let shard = |id| {
        let (shared, limits) = (Arc::clone(&shared), Arc::clone(&limits));
        Shard::new(Setup { id: ShardId(id), shards: count, shared, limits, ..setup(gate, Limits::default(), now) })
    };
    ((0..count).map(shard).collect(), shared)
}

/// Somebody on this machine, through TLS or not.
pub(crate) fn peer(tls: bool) -> Peer {
    Peer { addr: ([127, 0, 0, 1], 1).into(), tls, certificate: None }
}
