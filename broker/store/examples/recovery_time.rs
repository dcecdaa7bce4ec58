//! How long it takes to open a store and read it back: `recovery_time [devices] [sessions] [folder]`. A device is a registry record of
//! 200 bytes, a session has two subscriptions and is owed two messages of 200 bytes.

#![allow(clippy::print_stdout, missing_docs)]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use turnpike_core::durable::{Body, Op, Owed, Part, RecoveredSession, Recovery, SessionRecord};
use turnpike_core::ids::{ClientId, Seq, SessionKey, ShardId, Ticket, Turn};
use turnpike_core::message::{Message, MessageParts};
use turnpike_mqtt::{QoS, TopicName};
use turnpike_store::Store;
use turnpike_store::embedded::{EmbeddedStore, Options};

struct Count(u64);

impl Recovery for Count {
    fn session(&mut self, session: RecoveredSession) {
        self.0 += 1 + session.owed.len() as u64 + session.subscriptions.len() as u64;
    }

    fn retained(&mut self, _: Message) {
        self.0 += 1;
    }

    fn registry(&mut self, _: &[u8], _: &[u8]) {
        self.0 += 1;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| args.get(at).map_or(Ok(default), |text| text.parse());
    let (devices, sessions) = (number(0, 1_000_000)?, number(1, 100_000)?);
    let temporary = tempfile::tempdir_in(args.get(2).map_or(".", String::as_str))?;
    let folder = temporary.path().join("store");

    let mut store = EmbeddedStore::open(&folder, Options::default())?;
    let mut group = Vec::new();
    let ops = (0..devices).map(device).chain((1..=sessions).flat_map(session));
    for op in ops {
        group.push(op);
        if group.len() == 4_000 {
            let ticket = Ticket { origin: ShardId(0), turn: Turn(0) };
            store.commit(&[Part { ticket, parts: Some(1), ops: std::mem::take(&mut group) }])?;
        }
    }
    store.commit(&[Part { ticket: Ticket { origin: ShardId(0), turn: Turn(1) }, parts: Some(1), ops: group }])?;
    drop(store);

    let began = Instant::now();
    let mut store = EmbeddedStore::open(&folder, Options::default())?;
    println!("opened in {:.2?}", began.elapsed());
    let began = Instant::now();
    let mut count = Count(0);
    let summary = store.recover(&mut count)?;
    println!("read {} records in {:.2?}: {:?}", count.0, began.elapsed(), summary.counts);
    Ok(())
}

fn device(n: u64) -> Op {
    // Spread like names are.
    let name = format!("product\0{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Op::RegistryPut(name.into_bytes().into(), vec![n as u8; 200].into())
}

fn session(n: u64) -> Vec<Op> {
    let session = SessionKey(n);
    let record = SessionRecord {
        client: ClientId::new(&format!("product.device-{n}")),
        expiry_s: 3_600,
        disconnected_at_ms: Some(1_700_000_000),
        mqtt3: false,
        principal: format!("product\0device-{n}").into(),
        will: None,
    };
    let message = Message::new(&MessageParts {
        topic: TopicName::from_validated("dev/p/d/down/set"),
        properties: &[],
        payload: &[1; 200],
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at_ms: None,
        publisher: None,
    });
    let body = Body::Inline(Arc::new(message));
    let owed = Owed { qos: QoS::AtLeastOnce, retain: false, identifiers: Box::default(), share: None, body };
    let subscription =
        |filter: String| Op::SubscriptionPut { session, filter: filter.into(), options: 1, identifier: 0 };
    vec![
        Op::SessionPut(session, Arc::new(record)),
        subscription(format!("dev/product/device-{n}/down/#")),
        subscription(format!("dev/product/device-{n}/ota/#")),
        Op::OwedPut { session, seq: Seq(0), owed: owed.clone() },
        Op::OwedPut { session, seq: Seq(1), owed },
    ]
}
