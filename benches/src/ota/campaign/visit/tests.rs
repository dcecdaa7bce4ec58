use serde_json::Value;
use turnpike_mqtt::{Ack, AckProperties, ConnAck, ConnAckProperties, ConnectReason, decode, frame};
use turnpike_ota::block;

use super::*;

fn terms(way: Way, failing: u32) -> Terms {
    Terms { way, file: crate::ota::stage::content(1000), block_bytes: 256, failing }
}

const OFFER: &[u8] =
    br#"{"offer":{"offer":7,"target":"mcu","version":"2.0","size":1000,"url":"http://h/ota/v1/7?token=t"}}"#;

/// What it has said since the last time: of each message the end of its topic, and its payload.
fn said(out: &mut Vec<u8>) -> Vec<(String, Value)> {
    let (mut said, mut at) = (Vec::new(), 0);
    while let Some(found) = frame(&out[at..], u32::MAX).expect("frames") {
        at += found.len();
        if let Packet::Publish(publish) = decode(Version::V5, found).expect("a packet") {
            let topic = publish.topic.expect("a topic").as_str().rsplit('/').next().expect("an end").to_owned();
            said.push((topic, serde_json::from_slice(publish.payload).expect("JSON")));
        }
    }
    out.clear();
    said
}

struct Play {
    visit: Visit,
    terms: Terms,
    out: Vec<u8>,
}

impl Play {
    fn begin(terms: Terms) -> Self {
        let mut play = Self { visit: Visit::new(3), terms, out: Vec::new() };
        play.enter();
        play
    }

    fn enter(&mut self) {
        self.visit.enter(&mut self.out).expect("a log-in");
        self.out.clear();
        let ack = ConnAck {
            session_present: false,
            reason: ConnectReason::Success,
            properties: ConnAckProperties::default(),
        };
        assert_eq!(self.take(&Packet::ConnAck(Box::new(ack))), Next::Wait);
    }

    fn take(&mut self, packet: &Packet<'_>) -> Next {
        self.visit.handle(packet, &self.terms, &mut self.out).expect("as it should be")
    }

    fn hear(&mut self, rest: &str, payload: &[u8]) -> anyhow::Result<Next> {
        let topic = topic("d3", rest);
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: TopicName::parse(&topic).ok(),
            id: None,
            properties: PublishProperties::default(),
            payload,
        };
        self.visit.handle(&Packet::Publish(publish), &self.terms, &mut self.out)
    }

    fn acknowledge(&mut self, id: u16) -> Next {
        let id = PacketId::new(id).expect("not 0");
        self.take(&Packet::PubAck(Ack { id, reason: ReasonCode::Success, properties: AckProperties::default() }))
    }

    /// Up to the download.
    fn accept(&mut self) {
        assert_eq!(said(&mut self.out)[0].1["versions"]["mcu"], OLD);
        assert_eq!(self.acknowledge(CHECK), Next::Wait);
        assert_eq!(self.hear("offer", OFFER).expect("an offer"), Next::Wait);
        assert_eq!(self.hear("offer", OFFER).expect("the same"), Next::Wait);
        assert_eq!(said(&mut self.out), [("progress".to_owned(), progress_of("accepted"))]);
        assert_eq!(self.acknowledge(PROGRESS), Next::Stay);
    }

    fn download(&mut self) -> Next {
        self.visit.download(&self.terms, &mut self.out).expect("an offer")
    }

    fn apply(&mut self) {
        assert_eq!(self.acknowledge(PROGRESS), Next::Wait);
        assert_eq!(said(&mut self.out), [("progress".to_owned(), progress_of("applying"))]);
        assert_eq!(self.acknowledge(PROGRESS), Next::Return);
    }
}

fn progress_of(state: &str) -> Value {
    serde_json::from_str(&progress(7, state)).expect("JSON")
}

#[test]
fn a_device_takes_its_firmware_in_blocks_and_comes_back() {
    let mut play = Play::begin(terms(Way::Blocks, 0));
    play.accept();
    assert_eq!(play.download(), Next::Wait);
    assert_eq!(said(&mut play.out)[0].1["count"], 4);
    let file = play.terms.file.clone().into_bytes();
    for (at, bytes) in (0..).step_by(256).zip(file.chunks(256)) {
        if at == 768 {
            // Whichever comes first.
            assert_eq!(play.acknowledge(GET), Next::Wait);
            assert!(play.out.is_empty(), "the last isn't here");
        }
        assert_eq!(play.hear("block", &block::frame(7, at, bytes)).expect("a block"), Next::Wait);
    }
    assert_eq!(said(&mut play.out), [("progress".to_owned(), progress_of("downloaded"))]);
    play.apply();
    play.enter();
    assert_eq!(said(&mut play.out)[0].1["versions"]["mcu"], NEW);
    assert_eq!(play.hear("offer", br#"{"id":1,"offer":null}"#).expect("nothing"), Next::Wait);
    assert_eq!(play.acknowledge(CHECK), Next::Over);
}

#[test]
fn one_that_is_to_fail_fails_and_doesnt_come_back() {
    let terms = terms(Way::Http, 4);
    assert!(terms.fails(3) && !terms.fails(4) && terms.fails(7));
    let mut play = Play::begin(terms);
    play.accept();
    assert_eq!(play.download(), Next::Fetch("/ota/v1/7?token=t".to_owned()));
    play.visit.downloaded(&play.terms, &mut play.out).expect("an offer");
    assert_eq!(said(&mut play.out), [("progress".to_owned(), progress_of("failed"))]);
    assert_eq!(play.acknowledge(PROGRESS), Next::Over);
}

#[test]
fn what_is_wrong_is_seen() {
    let mut play = Play::begin(terms(Way::Blocks, 0));
    play.accept();
    assert_eq!(play.download(), Next::Wait);
    let file = play.terms.file.clone().into_bytes();
    for wrong in [
        block::frame(8, 0, &file[..256]),
        block::frame(7, 256, &file[256..512]),
        block::frame(7, 0, &file[1..257]),
        file[..256].to_vec(),
    ] {
        assert!(play.hear("block", &wrong).is_err());
    }
    let mut play = Play::begin(terms(Way::None, 0));
    play.accept();
    assert_eq!(play.download(), Next::Wait);
    assert_eq!(said(&mut play.out), [("progress".to_owned(), progress_of("downloaded"))]);
    play.apply();
    play.enter();
    assert_eq!(play.hear("offer", OFFER).expect("an old one"), Next::Wait);
    assert_eq!(play.visit.late(), 1);
    let answer = String::from_utf8(OFFER.to_vec()).expect("text").replacen('{', r#"{"id":1,"#, 1);
    assert!(play.hear("offer", answer.as_bytes()).is_err(), "it has that version");
}
