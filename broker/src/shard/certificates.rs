//! Certificates that live connections have shown, judged again when a reload has changed what they are judged by.
//!
//! A walk through the links, some of them a turn: judging one costs two signatures, its own and the revocation list's, and traffic
//! goes on meanwhile. Links that come while it is under way have been judged by what holds now. Another change begins a new walk,
//! which passes over what the last one has judged by the same edition.

use turnpike_core::gate::Gate;
use turnpike_mqtt::ReasonCode;

use super::ShardThread;

/// Certificates judged in one turn: two or three milliseconds.
const JUDGED_PER_TURN: usize = 16;
/// Places of links looked at in one turn.
const LOOKED_AT_PER_TURN: usize = 4096;

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Walk {
    next: u32,
    judged: u64,
    closed: u64,
}

impl<G: Gate> ShardThread<G> {
    /// Goes on with the walk, if there is one.
    pub(super) fn judge_certificates(&mut self) {
        let Some(mut walk) = self.judging.take() else { return };
        let enough = walk.judged + JUDGED_PER_TURN as u64;
        for _ in 0..LOOKED_AT_PER_TURN {
            if walk.next as usize >= self.links.capacity() {
                let Walk { judged, closed, .. } = walk;
                tracing::info!(shard = self.id.0, judged, closed, "certificates of live connections judged again");
                return;
            }
            self.judge_certificate(&mut walk);
            walk.next += 1;
            if walk.judged >= enough {
                break;
            }
        }
        self.judging = Some(walk);
    }

    fn judge_certificate(&mut self, walk: &mut Walk) {
        let key = walk.next;
        let layers = self.links.get_mut(key as usize).and_then(|link| link.layers.as_mut());
        let Some(outcome) = layers.map(|layers| layers.judge_again()) else { return };
        walk.judged += u64::from(outcome != Ok(false));
        let Err(error) = outcome else { return };
        walk.closed += 1;
        let Some(link) = self.links.get(key as usize) else { return };
        tracing::debug!(shard = self.id.0, %error, peer = ?link.stream.peer_addr().ok(), "connection cut");
        match link.conn {
            Some(conn) => self.core.part_with(conn, ReasonCode::NotAuthorized, self.now),
            // TLS is done, and WebSocket isn't.
            None => self.drop_link(key),
        }
    }
}
