//! What is said to devices: nothing before what it says is on disk, so that no crash takes back what a device has heard.

use std::time::Duration;

use tokio::sync::oneshot;
use turnpike_mqtt::ReasonCode;

use super::OtaDesk;
use crate::desk::Done;
use crate::server::Control;
use crate::shard::OutsideMessage;

/// Seconds between tries to reach a device that hasn't subscribed yet.
const TRIES_S: [u64; 5] = [1, 2, 4, 8, 0];

impl OtaDesk {
    /// Sends messages once what they say is on disk: never, if that can't be.
    pub(super) fn say(&self, committed: Option<oneshot::Receiver<()>>, messages: Vec<OutsideMessage>) {
        if messages.is_empty() {
            return;
        }
        let control = self.shell().control.clone();
        tokio::spawn(async move {
            if is_on_disk(committed).await {
                send(&control, messages);
            }
        });
    }

    /// Answers an errand once what it has changed is on disk: sends the messages, and says that it is done.
    pub(super) fn finish(&self, committed: Option<oneshot::Receiver<()>>, messages: Vec<OutsideMessage>, done: Done) {
        let control = self.shell().control.clone();
        tokio::spawn(async move {
            if is_on_disk(committed).await {
                send(&control, messages);
                done.say(Ok(()));
            } else {
                done.say(Err(ReasonCode::ImplementationSpecificError));
            }
        });
    }
}

async fn is_on_disk(committed: Option<oneshot::Receiver<()>>) -> bool {
    match committed {
        Some(committed) => committed.await.is_ok(),
        None => true,
    }
}

/// Sends each. Where nobody has subscribed yet, once more a little later: a device that has just come in subscribes in a moment.
fn send(control: &Control, messages: Vec<OutsideMessage>) {
    for message in messages {
        let control = control.clone();
        tokio::spawn(async move {
            for wait_s in TRIES_S {
                match control.publish_outside(message.clone()).await {
                    Ok(Ok(true)) | Err(_) => return,
                    Ok(Ok(false) | Err(_)) => tokio::time::sleep(Duration::from_secs(wait_s)).await,
                }
            }
        });
    }
}
