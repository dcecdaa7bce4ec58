//! A device that takes an offer: as much as downloads need of it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use turnpike_mqtt::QoS;

use super::stage::{NEW, OLD, PRODUCT, TARGET, device, device_login};
use crate::backfill::client::{Came, Client};

/// What a device asks for hasn't come if it hasn't by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connected device that has an offer.
pub(super) struct Device {
    pub(super) client: Client,
    name: String,
    pub(super) offer: Offer,
}

/// What it was offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Offer {
    /// The offer's number.
    pub(super) number: u32,
    /// Bytes of the file.
    pub(super) bytes: usize,
    /// Path and query of the link.
    pub(super) path: String,
    /// It was asked for, by a check.
    pub(super) answers: bool,
}

impl Offer {
    /// Reads an offer, pushed or answered; none if there is nothing for the device.
    pub(super) fn read(payload: &[u8]) -> anyhow::Result<Option<Self>> {
        let said: Value = serde_json::from_slice(payload)?;
        let offer = &said["offer"];
        if offer.is_null() {
            return Ok(None);
        }
        anyhow::ensure!(offer["version"] == NEW && offer["target"] == TARGET, "another offer than the campaign's");
        let url = offer["url"].as_str().context("an offer without a link")?;
        let path = url.find("/ota/v1/").and_then(|at| url.get(at..)).context("a link elsewhere")?;
        let number = |field: &Value| field.as_u64().context("an offer without its numbers");
        Ok(Some(Self {
            number: u32::try_from(number(&offer["offer"])?)?,
            bytes: usize::try_from(number(&offer["size"])?)?,
            path: path.to_owned(),
            answers: !said["id"].is_null(),
        }))
    }
}

/// What a device says of itself.
pub(super) fn check(version: &str) -> String {
    json!({ "id": 1, "versions": { TARGET: version } }).to_string()
}

/// How far it says that it is.
pub(super) fn progress(offer: u32, state: &str) -> String {
    let reason = if state == "failed" { json!("space") } else { Value::Null };
    json!({ "offer": offer, "state": state, "reason": reason }).to_string()
}

/// Asks for blocks in a row.
pub(super) fn get(offer: u32, block_bytes: usize, offset: usize, count: usize) -> String {
    json!({ "offer": offer, "size": block_bytes, "offset": offset, "count": count }).to_string()
}

pub(super) fn topic(name: &str, rest: &str) -> String {
    format!("dev/{PRODUCT}/{name}/ota/{rest}")
}

impl Device {
    /// Comes in, checks, and waits for its offer.
    pub(super) fn come(address: SocketAddr, n: u32) -> anyhow::Result<Self> {
        let name = device(n);
        let mut client = Client::connect(address, &device_login(n)?, None)?;
        client.set_patience(PATIENCE)?;
        client.subscribe(&topic(&name, "+"), QoS::AtLeastOnce)?;
        client.publish(&topic(&name, "check"), check(OLD).as_bytes(), QoS::AtLeastOnce, 1)?;
        loop {
            let Some(came) = client.next()? else { anyhow::bail!("{name} is offered nothing") };
            let Came::Message { topic, payload, qos1, .. } = came else { continue };
            if let Some(id) = qos1 {
                client.acknowledge(id);
                client.flush()?;
            }
            if topic.ends_with("/offer")
                && let Some(offer) = Offer::read(&payload)?
            {
                return Ok(Self { client, name, offer });
            }
        }
    }

    pub(super) fn ask(&mut self, block_bytes: usize, offset: usize, count: usize) -> anyhow::Result<()> {
        let request = get(self.offer.number, block_bytes, offset, count);
        self.client.publish(&topic(&self.name, "get"), request.as_bytes(), QoS::AtLeastOnce, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_read() {
        assert_eq!(Offer::read(br#"{"id":1,"offer":null}"#).expect("an answer"), None);
        let text =
            br#"{"offer":{"offer":7,"target":"mcu","version":"2.0","size":9,"url":"http://h/ota/v1/7?token=t"}}"#;
        let offer = Offer { number: 7, bytes: 9, path: "/ota/v1/7?token=t".to_owned(), answers: false };
        assert_eq!(Offer::read(text).expect("an offer"), Some(offer));
        assert!(Offer::read(br#"{"offer":{"offer":7,"target":"mcu","version":"3.0"}}"#).is_err());
    }

    #[test]
    fn what_is_asked_for_can_be_read() {
        use turnpike_ota::block::Request;

        let request = Request::read(get(7, 256, 512, 2).as_bytes(), 1000).expect("a request");
        assert_eq!((request.offer, request.places().collect::<Vec<_>>()), (7, vec![(512, 256), (768, 232)]));
    }
}
