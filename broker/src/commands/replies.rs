//! What devices answer.

use turnpike_authz::desk::Matter;
use turnpike_core::shard::Errand;
use turnpike_mqtt::{ReasonCode, Version};
use turnpike_ota::command::{Answered, ReplyError, State as Stage};

use super::{CommandDesk, Counted, names};
use crate::desk::Done;

impl CommandDesk {
    pub(super) fn errand(&self, matter: Matter, errand: &Errand, done: Done) {
        match matter {
            Matter::CommandReply => self.reply(errand, done),
            // Not this desk's.
            _ => done.say(Ok(())),
        }
    }

    fn reply(&self, errand: &Errand, done: Done) {
        // What is over by now is so for its device too.
        self.expire();
        let Some((product, device)) = names(&errand.device) else { return done.say(Ok(())) };
        let mut state = self.state.lock();
        let payload = errand.message.parts().payload;
        let changes = match state.book.answered(&product, &device, payload, done.now().unix_ms) {
            Ok(Answered::Again) => {
                self.counts.add(Counted::ReplyAgain);
                Vec::new()
            }
            Ok(Answered::Moved(id, changes)) => {
                if let Some(command) = state.book.get(id) {
                    self.counts.add(match command.state {
                        Stage::Accepted => Counted::Accepted,
                        Stage::Failed => Counted::Failed,
                        Stage::Rejected => Counted::Rejected,
                        // No other is a device's to say.
                        _ => Counted::Done,
                    });
                    if command.state.is_end() {
                        self.tell(command);
                    }
                }
                changes
            }
            Ok(Answered::Late(id, changes)) => {
                self.counts.add(Counted::ReplyLate);
                if let (Some(command), false) = (state.book.get(id), changes.is_empty()) {
                    self.tell(command);
                }
                changes
            }
            Err(error) => {
                drop(state);
                return self.useless(errand, error, done);
            }
        };
        if changes.is_empty() {
            return done.say(Ok(()));
        }
        let committed = self.commit(&changes);
        drop(state);
        self.finish(committed, done);
    }

    /// An answer that changes nothing. Only who doesn't know the form is told: the others have done nothing wrong, or aren't to learn of commands that aren't theirs.
    fn useless(&self, errand: &Errand, error: ReplyError, done: Done) {
        tracing::debug!(product = &*errand.device.product, %error, "a device's answer to a command is of no use");
        let (counted, refused) = match error {
            ReplyError::Malformed => (Counted::ReplyMalformed, refusal(errand.version)),
            ReplyError::Unknown => (Counted::ReplyUnknown, Ok(())),
            ReplyError::OthersCommand => (Counted::ReplyToOthers, Ok(())),
            ReplyError::OutOfPlace => (Counted::ReplyOutOfPlace, Ok(())),
        };
        self.counts.add(counted);
        done.say(refused);
    }
}

/// A device of MQTT 3 can't be told why, and would lose its connection.
pub(super) fn refusal(version: Version) -> Result<(), ReasonCode> {
    match version {
        Version::V31 | Version::V311 => Ok(()),
        Version::V5 => Err(ReasonCode::PayloadFormatInvalid),
    }
}
