//! Blocks over MQTT: what a device asks for is read and sent before its connection is read on, within a budget that all share.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use turnpike_core::gate::Principal;
use turnpike_core::shard::Errand;
use turnpike_mqtt::{QoS, ReasonCode};
use turnpike_ota::block::{BlockError, Request, frame, offer_of};
use turnpike_ota::ids::FirmwareId;

use super::OtaDesk;
use super::devices::refusal;
use super::faults::Coded;
use super::shelf::ShelfError;
use crate::desk::Done;
use crate::shard::OutsideMessage;

/// Milliseconds after which a block that found no room is of no use.
const BLOCK_MS: u64 = 60_000;
/// What may go out at once after a pause.
const BURST: Duration = Duration::from_millis(250);

/// Bytes a second. Whoever takes some waits until those before have gone, so turns are taken in order of asking.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_s: u64,
    /// When all that was granted is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Budget {
    pub(super) fn new(bytes_s: u64) -> Self {
        Self { bytes_s: bytes_s.max(1), paid: Mutex::new(None) }
    }

    /// When so many bytes may go, asked for at `now`.
    fn grant(&self, bytes: u64, now: Instant) -> Instant {
        let cost = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.bytes_s);
        let mut paid = self.paid.lock();
        let start = paid.map_or(now, |paid| paid.max(now.checked_sub(BURST).unwrap_or(now)));
        *paid = Some(start + cost);
        start
    }
}

/// Why a request got nothing, or not all.
#[derive(Debug, thiserror::Error)]
enum GetError {
    #[error(transparent)]
    Request(#[from] BlockError),
    #[error("the device has no such offer")]
    NoOffer,
    #[error(transparent)]
    File(#[from] ShelfError),
}

impl Coded for GetError {
    fn code(&self) -> &'static str {
        match self {
            Self::Request(error) => error.code(),
            Self::NoOffer => "no_offer",
            Self::File(_) => "unreadable",
        }
    }
}

impl OtaDesk {
    pub(super) fn blocks(self: &Arc<Self>, errand: Errand, done: Done) {
        let desk = Arc::clone(self);
        tokio::spawn(async move {
            match desk.serve_blocks(&errand, done.now().unix_ms).await {
                Ok(()) => done.say(Ok(())),
                Err(error @ GetError::File(_)) => {
                    tracing::error!(%error, "blocks of a firmware can't be sent");
                    done.say(refusal(errand.version).map_err(|_| ReasonCode::ImplementationSpecificError));
                }
                Err(error) => {
                    desk.count_fault(&errand.device.product, &error);
                    done.say(refusal(errand.version));
                }
            }
        });
    }

    async fn serve_blocks(&self, errand: &Errand, now_ms: u64) -> Result<(), GetError> {
        let parts = errand.message.parts();
        let (product, device) = (&*errand.device.product, &*errand.device.device);
        let number = offer_of(parts.payload)?;
        let file = FirmwareId(u64::from(number));
        let whole = {
            let state = self.state.lock();
            state.campaign_of(product, device, file).ok_or(GetError::NoOffer)?;
            let contents = state.catalog.get(file).and_then(|firmware| firmware.ready());
            contents.ok_or(GetError::NoOffer)?.whole
        };
        let request = Request::read(parts.payload, whole.bytes)?;
        let opened = self.open(file, &whole)?;
        let turn = self.turns.take(product, device);
        let mut sent = Vec::new();
        for (offset, length) in request.places() {
            // Where nobody waits for the rest, none of it is due.
            let is_here = || self.is_here(product, device);
            let grant = || self.budget.grant(u64::from(length), Instant::now());
            let Some(at) = is_here().then(|| turn.grant(grant)).flatten() else { break };
            tokio::time::sleep_until(at).await;
            if !is_here() || !turn.take_granted() {
                break;
            }
            let block = opened.read(offset, length as usize).await?;
            let place = u32::try_from(offset).map_err(|_| GetError::Request(BlockError::Nothing))?;
            let message = OutsideMessage {
                principal: Principal::Broker,
                topic: format!("dev/{product}/{device}/ota/block"),
                payload: frame(number, place, &block),
                qos: QoS::AtMostOnce,
                expires_at_ms: now_ms + BLOCK_MS,
            };
            sent.push(self.shell().control.publish_outside(message));
            self.counts.blocks.fetch_add(1, Relaxed);
            self.counts.block_bytes.fetch_add(u64::from(length), Relaxed);
        }
        for taken in sent {
            // What found no room the device asks for again.
            let _ = taken.await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_in_the_long_run_and_grants_a_burst() {
        let budget = Budget::new(1000);
        let begin = Instant::now() + Duration::from_secs(10);
        assert_eq!(budget.grant(500, begin), begin);
        assert_eq!(budget.grant(500, begin), begin + Duration::from_millis(500));
        let later = begin + Duration::from_secs(10);
        // A pause is worth a quarter of a second.
        assert_eq!(budget.grant(250, later), later - BURST);
        assert_eq!(budget.grant(1, later), later);
        assert_eq!(budget.grant(1, later), later + Duration::from_millis(1));
    }
}
