//! How many records a second one core decodes, and what a device's ledger takes.

#![allow(clippy::print_stdout, reason = "it is what it is for")]

use std::time::Instant;

use turnpike_backfill::batch::{Tree, decode};
use turnpike_backfill::bounds::Bounds;
use turnpike_backfill::budget::{Answer, Budget, Settings};
use turnpike_backfill::ledger::Ledgers;

const NOW_MS: u64 = 1_760_000_000_000;
const BATCH: u64 = 4096;

fn records(as_maps: bool) -> Vec<u8> {
    let mut out = minicbor::Encoder::new(Vec::new());
    let _ = out.array(BATCH);
    for seq in 1..=BATCH {
        let payload = format!("{{\"t\":21.5,\"n\":{seq:05},\"s\":\"ok\"}}");
        let _ = if as_maps { out.map(5) } else { out.array(5) };
        let name = |out: &mut minicbor::Encoder<Vec<u8>>, name: &str| as_maps.then(|| out.str(name).map(drop));
        let _ = (name(&mut out, "boot"), out.u64(7).map(drop), name(&mut out, "seq"), out.u64(seq).map(drop));
        let _ =
            (name(&mut out, "ts"), out.u64(NOW_MS).map(drop), name(&mut out, "topic"), out.str("up/temp").map(drop));
        let _ = (name(&mut out, "payload"), out.bytes(payload.as_bytes()).map(drop));
    }
    out.into_writer()
}

fn measure(name: &str, count: u64, mut step: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..50 {
        let start = Instant::now();
        step();
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name}: {:.1} M/s, {:.0} ns each", count as f64 / best / 1e6, best / count as f64 * 1e9);
}

fn main() {
    let bounds = Bounds::default();
    let tree = Tree::new("product", "device");
    let (arrays, maps) = (records(false), records(true));
    for (name, bytes) in [("CBOR, arrays", arrays.clone()), ("CBOR, maps", maps)] {
        measure(name, BATCH, || {
            assert_eq!(decode(&bytes, None, &bounds).map(|batch| batch.len() as u64), Ok(BATCH));
        });
        measure(&format!("{name}, checked"), BATCH, || {
            let Ok(mut batch) = decode(&bytes, None, &bounds) else { return };
            batch.check(&tree, NOW_MS, &bounds);
            assert_eq!(batch.stopped(), None);
        });
    }
    let json: Vec<String> = (1..=BATCH)
        .map(|seq| {
            format!(
                r#"{{"boot":7,"seq":{seq},"ts":{NOW_MS},"topic":"up/temp","payload":"21.5 and 22.5, number {seq}"}}"#
            )
        })
        .collect();
    let json = format!("[{}]", json.join(","));
    measure("JSON", BATCH, || {
        assert_eq!(decode(json.as_bytes(), None, &bounds).map(|batch| batch.len() as u64), Ok(BATCH));
    });

    let names: Vec<String> = (0..100_000).map(|device| format!("device-{device:08}")).collect();
    let mut ledgers = Ledgers::new(names.len());
    for name in &names {
        if let Ok(ledger) = ledgers.get_or_create("product-01", name) {
            let _ = ledger.take(1, 1, &bounds);
        }
    }
    println!("{} bytes a device", ledgers.heap_bytes() / ledgers.len());
    let mut seq = 1;
    measure("take in order", 100_000, || {
        seq += 1;
        for name in &names {
            if let Ok(ledger) = ledgers.get_or_create("product-01", name) {
                let _ = ledger.take(1, seq, &bounds);
            }
        }
    });
    let mut budget = Budget::new(Settings::default());
    let mut now = 0;
    measure("ask of the budget", 100_000, || {
        for name in &names {
            now += 20_000;
            if budget.ask(now, "product-01", name, 10, 500) == Answer::Go {
                now += 1;
            }
        }
    });
}
