//! The broker's core in simulation: several shards, the memory store, a clock that jumps, connections that break in the middle of a
//! packet, batches, commits and answers about CONNECTs that arrive late, and crashes that lose whatever wasn't committed. Everything follows from a seed;
//! the seed of a failing run is printed, and `SIMULATION_SEED` runs it again.
//!
//! What must hold, for publishers and subscribers with durable sessions:
//!
//! - a message whose PUBACK or PUBREC was received is delivered to every subscriber in the end: QoS 1 at least once, QoS 2 exactly once;
//! - no QoS 2 message is delivered twice, ever;
//! - the first deliveries of a publisher's messages of one QoS come in the order of their publication;
//! - a session that was confirmed is present after a crash.

mod client;
mod world;

use world::World;

fn run(seed: u64, shards: u16) -> (usize, u32) {
    let mut world = World::new(seed, shards);
    for _ in 0..10_000 {
        world.step();
    }
    world.settle();
    world.check();
    world.summary()
}

fn run_seeds(shards: u16, count: u64) {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        run(seed.parse().expect("SIMULATION_SEED is a number"), shards);
        return;
    }
    let (mut messages, mut crashes) = (0, 0);
    for seed in 0..count {
        match std::panic::catch_unwind(|| run(seed, shards)) {
            Ok(summary) => {
                messages += summary.0;
                crashes += summary.1;
            }
            Err(panic) => {
                eprintln!("simulation failed: SIMULATION_SEED={seed}, {shards} shards");
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("{count} runs, {messages} messages acknowledged, {crashes} crashes");
    assert!(messages > 50 * count as usize && u64::from(crashes) > count, "the runs exercised nothing");
}

#[test]
fn one_shard_loses_nothing_acknowledged() {
    run_seeds(1, 40);
}

#[test]
fn two_shards_lose_nothing_acknowledged() {
    run_seeds(2, 60);
}

#[test]
fn four_shards_lose_nothing_acknowledged() {
    run_seeds(4, 60);
}
