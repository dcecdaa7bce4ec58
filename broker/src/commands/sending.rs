//! Commands to devices that are there.
//!
//! Somebody else may listen to a device's topics, so that a message finds a taker doesn't say that its device hears it: the shards are asked first.

use std::sync::Arc;

use turnpike_authz::names::{DeviceName, ProductKey};
use turnpike_core::gate::{DeviceIdentity, Principal};
use turnpike_core::shard::Reach;
use turnpike_mqtt::QoS;
use turnpike_ota::command::Command;

use super::{AT_ONCE, CommandDesk, Counted, op};
use crate::shard::OutsideMessage;

impl CommandDesk {
    /// Sends what is due.
    pub(super) fn send(self: &Arc<Self>) {
        loop {
            let now = self.shell().control.now();
            let commands = self.state.lock().book.to_send(now.unix_ms, AT_ONCE);
            let is_last = commands.len() < AT_ONCE;
            let of_one = |a: &Command, b: &Command| (&a.product, &a.device) == (&b.product, &b.device);
            for commands in commands.chunk_by(of_one) {
                tokio::spawn(Arc::clone(self).send_to_one(commands.to_vec()));
            }
            if is_last {
                return;
            }
        }
    }

    /// Commands of one device, in their order.
    async fn send_to_one(self: Arc<Self>, commands: Vec<Command>) {
        let Some((product, device)) = commands.first().map(|first| (&first.product, &first.device)) else { return };
        let control = self.shell().control.clone();
        let topic = topic(product, device);
        let identity = DeviceIdentity::new(product.as_str(), device.as_str());
        let reach = control.reach(&Principal::Device(Arc::new(identity)), &topic).await;
        for command in &commands {
            // It may have been cancelled meanwhile.
            let is_open = || self.state.lock().book.get(command.id).is_some_and(|command| !command.state.is_end());
            if reach == Reach::Hears && is_open() {
                let message = OutsideMessage {
                    principal: Principal::Broker,
                    topic: topic.clone(),
                    payload: command.payload().into_bytes(),
                    qos: QoS::AtLeastOnce,
                    expires_at_ms: command.deadline_ms,
                };
                if let Ok(Ok(true)) = control.publish_outside(message).await {
                    self.counts.add(Counted::Sent);
                    let mut state = self.state.lock();
                    let changes = state.book.sent(command.id, control.now().unix_ms);
                    // Nobody waits for it: what a crash loses goes out once more.
                    drop(control.commit_registry(changes.iter().map(op).collect()));
                    continue;
                }
            }
            self.state.lock().book.not_heard(command.id, reach != Reach::Absent, control.now().unix_ms);
        }
    }
}

fn topic(product: &ProductKey, device: &DeviceName) -> String {
    format!("dev/{product}/{device}/sys/cmd")
}
