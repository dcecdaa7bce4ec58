//! What is said to devices: nothing before what it says is on disk, so that no crash takes back what a device has heard.

use std::sync::Arc;

use tokio::sync::oneshot;
use turnpike_mqtt::ReasonCode;

use super::OtaDesk;
use super::push::Push;
use crate::desk::Done;

impl OtaDesk {
    /// Sends messages once what they say is on disk: never, if that can't be.
    pub(super) fn say(&self, committed: Option<oneshot::Receiver<()>>, messages: Vec<Push>) {
        if messages.is_empty() {
            return;
        }
        let sending = self.sending(messages);
        tokio::spawn(async move {
            if is_on_disk(committed).await {
                sending();
            }
        });
    }

    /// Answers an errand once what it has changed is on disk: sends the messages, and says that it is done.
    pub(super) fn finish(&self, committed: Option<oneshot::Receiver<()>>, messages: Vec<Push>, done: Done) {
        let sending = self.sending(messages);
        tokio::spawn(async move {
            if is_on_disk(committed).await {
                sending();
                done.say(Ok(()));
            } else {
                done.say(Err(ReasonCode::ImplementationSpecificError));
            }
        });
    }

    /// What sends them.
    fn sending(&self, messages: Vec<Push>) -> impl FnOnce() + Send + 'static {
        let (control, state) = (self.shell().control.clone(), Arc::clone(&self.state));
        move || {
            for push in messages {
                tokio::spawn(push.send(control.clone(), Arc::clone(&state)));
            }
        }
    }
}

async fn is_on_disk(committed: Option<oneshot::Receiver<()>>) -> bool {
    match committed {
        Some(committed) => committed.await.is_ok(),
        None => true,
    }
}
