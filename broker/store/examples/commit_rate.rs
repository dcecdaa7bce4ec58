//! Durable operations per second through the committer and the embedded store: `commit_rate [messages] [bytes] [batch] [folder]`.
//!
//! Four producers stand for shards. Each submits tickets of `batch` messages that are owed to one of a thousand sessions, and in
//! the same ticket deletes the messages of a ticket that was committed before, as clients' acknowledgements do. A producer has at most
//! eight tickets under way. Every message counts when its ticket was reported as committed.

#![allow(clippy::print_stdout, missing_docs)]

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use turnpike_core::durable::{Body, Op, Owed, Part};
use turnpike_core::ids::{Seq, SessionKey, ShardId, Ticket, Turn};
use turnpike_core::message::{Message, MessageParts};
use turnpike_mqtt::{QoS, TopicName};
use turnpike_store::embedded::{EmbeddedStore, Options};
use turnpike_store::stats::LATENCY_BOUNDS_US;
use turnpike_store::{CommitEvent, Committer, CommitterHandle, Limits};

const PRODUCERS: u16 = 4;
const UNDER_WAY: usize = 8;
const SESSIONS: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |text| text.parse());
    let (messages, bytes, batch) = (number(0, 2_000_000)?, number(1, 200)?, number(2, 250)?);
    let temporary = tempfile::tempdir_in(args.get(3).map_or(".", String::as_str))?;

    let store = EmbeddedStore::open(temporary.path().join("store"), Options::default())?;
    let (senders, receivers): (Vec<Sender<Turn>>, Vec<Receiver<Turn>>) = (0..PRODUCERS).map(|_| channel()).unzip();
    let on_event = move |event: CommitEvent<'_>| match event {
        CommitEvent::Committed(tickets) => {
            for ticket in tickets {
                let _ = senders.get(usize::from(ticket.origin.0)).map(|sender| sender.send(ticket.turn));
            }
        }
        CommitEvent::Failed { error } => println!("failed: {error}"),
        CommitEvent::Recovered => println!("recovered"),
        CommitEvent::Low => println!("low on space"),
        CommitEvent::Ample => println!("space again"),
    };
    let committer = Committer::start(Box::new(store), Limits::default(), Box::new(on_event))?;

    let began = Instant::now();
    let threads: Vec<_> = receivers
        .into_iter()
        .zip(0..PRODUCERS)
        .map(|(committed, origin)| {
            let producer = Producer { origin, committer: committer.clone(), bytes, batch };
            std::thread::spawn(move || producer.run(messages / usize::from(PRODUCERS), &committed))
        })
        .collect();
    let mut done = 0;
    let mut latencies = Vec::new();
    for thread in threads {
        let (messages, mut took) = thread.join().map_err(|_| "a producer panicked")?;
        done += messages;
        latencies.append(&mut took);
    }
    report(&committer, done, began.elapsed(), latencies);
    committer.shutdown(Duration::from_secs(30))?;
    Ok(())
}

struct Producer {
    origin: u16,
    committer: CommitterHandle,
    bytes: usize,
    batch: usize,
}

impl Producer {
    /// Returns how many messages were committed, and how long each ticket took.
    fn run(&self, messages: usize, committed: &Receiver<Turn>) -> (usize, Vec<Duration>) {
        let mut next_seq = vec![u64::from(self.origin) << 40; usize::try_from(SESSIONS).unwrap_or_default()];
        let mut under_way: VecDeque<(Vec<(u64, u64)>, Instant)> = VecDeque::new();
        let mut to_delete: VecDeque<Vec<(u64, u64)>> = VecDeque::new();
        let mut latencies = Vec::new();
        let mut state = u64::from(self.origin) + 88_172_645_463_325_252;
        let turns = messages.div_ceil(self.batch);
        for turn in 0..turns {
            if under_way.len() == UNDER_WAY {
                Self::wait(committed, &mut under_way, &mut to_delete, &mut latencies);
            }
            let mut places = Vec::with_capacity(self.batch);
            let mut ops = Vec::with_capacity(2 * self.batch);
            for _ in 0..self.batch {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let session = state % SESSIONS;
                let Some(seq) = next_seq.get_mut(session as usize) else { continue };
                places.push((session, *seq));
                ops.push(self.put(session, *seq));
                *seq += 1;
            }
            for (session, seq) in to_delete.pop_front().unwrap_or_default() {
                ops.push(Op::OwedDelete { session: SessionKey(session), seq: Seq(seq) });
            }
            let ticket = Ticket { origin: ShardId(self.origin), turn: Turn(turn as u64) };
            under_way.push_back((places, Instant::now()));
            self.committer.submit(Part { ticket, parts: Some(1), ops });
        }
        while !under_way.is_empty() {
            Self::wait(committed, &mut under_way, &mut to_delete, &mut latencies);
        }
        (turns * self.batch, latencies)
    }

    fn wait(
        committed: &Receiver<Turn>,
        under_way: &mut VecDeque<(Vec<(u64, u64)>, Instant)>,
        to_delete: &mut VecDeque<Vec<(u64, u64)>>,
        latencies: &mut Vec<Duration>,
    ) {
        if committed.recv().is_ok()
            && let Some((places, submitted)) = under_way.pop_front()
        {
            latencies.push(submitted.elapsed());
            to_delete.push_back(places);
        }
    }

    fn put(&self, session: u64, seq: u64) -> Op {
        let message = Message::new(&MessageParts {
            topic: TopicName::from_validated("dev/p/d/up/data"),
            properties: &[],
            payload: &vec![seq as u8; self.bytes],
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at_ms: None,
            publisher: None,
        });
        let body = Body::Inline(Arc::new(message));
        let owed = Owed { qos: QoS::AtLeastOnce, retain: false, identifiers: Box::default(), share: None, body };
        Op::OwedPut { session: SessionKey(session), seq: Seq(seq), owed }
    }
}

fn report(committer: &CommitterHandle, messages: usize, took: Duration, mut latencies: Vec<Duration>) {
    let stats = committer.stats();
    let commits = stats.commits.load(Relaxed).max(1);
    let rate = |count: u64| (count as f64 / took.as_secs_f64()) as u64;
    latencies.sort_unstable();
    let at =
        |percent: usize| latencies.get(latencies.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    println!("{messages} messages acknowledged in {took:.2?}: {} a second", rate(messages as u64));
    println!("{} operations a second, {} a commit", rate(stats.ops.load(Relaxed)), stats.ops.load(Relaxed) / commits);
    println!("from submission to acknowledgement: median {:.2?}, 99% {:.2?}, longest {:.2?}", at(50), at(99), at(100));
    let (buckets, sum_us) = stats.latency();
    println!("{commits} commits, mean {} µs", sum_us / commits);
    for (count, bound) in buckets.iter().zip(LATENCY_BOUNDS_US) {
        println!("  ≤ {bound:>9} µs {count:>7}");
    }
    if let Some(field) = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(memory) {
        println!("resident memory, highest: {field}");
    }
}

fn memory(status: &str) -> Option<&str> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::trim)
}
