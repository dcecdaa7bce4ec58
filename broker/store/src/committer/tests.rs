use std::sync::mpsc;

use turnpike_core::durable::Op;
use turnpike_core::ids::{ShardId, Turn};

use super::*;
use crate::faulty::{Fault, FaultPlan, FaultyStore};
use crate::memory::MemoryStore;

const LONG: Duration = Duration::from_secs(20);

#[derive(PartialEq, Debug)]
enum Said {
    Committed(Vec<(u16, u64)>),
    Failed,
    Recovered,
    Low,
    Ample,
}

fn start(store: impl Store + 'static, limits: Limits) -> (CommitterHandle, mpsc::Receiver<Said>) {
    let (say, said) = mpsc::channel();
    let on_event: OnEvent = Box::new(move |event| {
        let _ = say.send(match event {
            CommitEvent::Committed(tickets) => {
                Said::Committed(tickets.iter().map(|t| (t.origin.0, t.turn.0)).collect())
            }
            CommitEvent::Failed { .. } => Said::Failed,
            CommitEvent::Recovered => Said::Recovered,
            CommitEvent::Low => Said::Low,
            CommitEvent::Ample => Said::Ample,
        });
    });
    (Committer::start(Box::new(store), limits, on_event).unwrap(), said)
}

fn quick() -> Limits {
    Limits { retry_min: Duration::from_millis(1), retry_max: Duration::from_millis(4), ..Limits::default() }
}

fn part(origin: u16, turn: u64, parts: Option<u16>) -> Part {
    let ops = vec![Op::RegistryPut(Box::from(turn.to_be_bytes()), Box::from(*b"v"))];
    Part { ticket: Ticket { origin: ShardId(origin), turn: Turn(turn) }, parts, ops }
}

fn committed(said: &[Said]) -> Vec<(u16, u64)> {
    said.iter().flat_map(|s| if let Said::Committed(t) = s { t.clone() } else { Vec::new() }).collect()
}

#[test]
fn tickets_are_reported_in_order_and_flush_waits_for_them() {
    let (handle, said) = start(MemoryStore::new(), Limits { group_ops_max: 3, ..quick() });
    for turn in 0..100 {
        handle.submit(part(0, turn, Some(1)));
    }
    handle.flush(LONG).unwrap();
    let said: Vec<Said> = said.try_iter().collect();
    assert_eq!(committed(&said), (0..100).map(|turn| (0, turn)).collect::<Vec<_>>());
    assert!(said.iter().all(|s| matches!(s, Said::Committed(tickets) if tickets.len() <= 3)));
    assert_eq!(handle.stats().tickets.load(Relaxed), 100);
    assert_eq!(handle.stats().pending_bytes.load(Relaxed), 0);
    handle.shutdown(LONG).unwrap();
}

#[test]
fn an_incomplete_ticket_is_not_waited_for_and_never_committed() {
    let memory = MemoryStore::new();
    let (handle, said) = start(memory.clone(), quick());
    handle.submit_many([part(0, 1, Some(1)), part(0, 2, Some(2)), part(1, 5, Some(1))]);
    handle.flush(LONG).unwrap();
    assert_eq!(handle.stats().incomplete_tickets.load(Relaxed), 1);
    handle.shutdown(LONG).unwrap();
    let mut tickets = committed(&said.try_iter().collect::<Vec<_>>());
    tickets.sort_unstable();
    assert_eq!(tickets, [(0, 1), (1, 5)]);
    assert_eq!(handle.flush(LONG), Ok(()));
    handle.submit(part(0, 3, Some(1)));
    assert_eq!(handle.flush(LONG), Err(FlushError::Stopped));
}

#[test]
fn a_failed_commit_is_said_once_retried_and_nothing_is_reported_early() {
    for fault in [Fault::Before, Fault::After] {
        let plan = FaultPlan::default();
        plan.fail_commit(2, fault);
        plan.fail_commit(3, fault);
        plan.fail_heals(2);
        let limits = Limits { group_ops_max: 1, ..quick() };
        let (handle, said) = start(FaultyStore::new(MemoryStore::new(), plan.clone()), limits);
        for turn in 0..5 {
            handle.submit(part(0, turn, Some(1)));
        }
        handle.flush(LONG).unwrap();
        let said: Vec<Said> = said.try_iter().collect();
        let one = |turn| Said::Committed(vec![(0, turn)]);
        assert_eq!(said, [one(0), Said::Failed, one(1), Said::Recovered, one(2), one(3), one(4)]);
        assert_eq!(plan.commits(), 7);
        assert_eq!(handle.stats().failures.load(Relaxed), 2);
        assert!(handle.stats().is_healthy());
        handle.shutdown(LONG).unwrap();
    }
}

#[test]
fn while_the_store_is_down_nothing_is_committed_and_shutdown_keeps_its_limit() {
    let plan = FaultPlan::default();
    plan.break_down(Fault::Before);
    let memory = MemoryStore::new();
    let (handle, said) = start(FaultyStore::new(memory, plan.clone()), quick());
    handle.submit(part(0, 0, Some(1)));
    assert_eq!(said.recv_timeout(LONG).unwrap(), Said::Failed);
    assert!(!handle.stats().is_healthy());
    handle.submit(part(0, 1, Some(1)));
    assert!(matches!(handle.flush(Duration::from_millis(30)), Err(FlushError::TimedOut { .. })));
    assert!(matches!(handle.shutdown(Duration::from_millis(30)), Err(FlushError::TimedOut { .. })));
    assert_eq!(said.try_iter().collect::<Vec<_>>(), []);
}

#[test]
fn it_recovers_when_the_store_does() {
    let plan = FaultPlan::default();
    plan.break_down(Fault::After);
    let (handle, said) = start(FaultyStore::new(MemoryStore::new(), plan.clone()), quick());
    handle.submit(part(0, 0, Some(1)));
    assert_eq!(said.recv_timeout(LONG).unwrap(), Said::Failed);
    plan.repair();
    assert_eq!(said.recv_timeout(LONG).unwrap(), Said::Committed(vec![(0, 0)]));
    assert_eq!(said.recv_timeout(LONG).unwrap(), Said::Recovered);
    handle.shutdown(LONG).unwrap();
}

#[test]
fn shutdown_commits_what_is_complete() {
    let (handle, said) = start(MemoryStore::new(), Limits { group_ops_max: 1, ..quick() });
    handle.submit_many((0..500).map(|turn| part(0, turn, Some(1))));
    handle.shutdown(LONG).unwrap();
    assert_eq!(committed(&said.try_iter().collect::<Vec<_>>()).len(), 500);
    let (counts, _) = handle.stats().latency();
    assert_eq!(counts.iter().sum::<u64>(), 500);
    assert_eq!(handle.stats().running_for(), None);
}

#[test]
fn low_space_is_said_once_and_its_end_without_another_commit() {
    let plan = FaultPlan::default();
    let (handle, said) = start(FaultyStore::new(MemoryStore::new(), plan.clone()), quick());
    plan.set_low(true);
    for turn in 1..=3 {
        handle.submit(part(0, turn, Some(1)));
        handle.flush(LONG).unwrap();
    }
    plan.set_low(false);
    let mut all = Vec::new();
    while all.last() != Some(&Said::Ample) {
        all.push(said.recv_timeout(LONG).unwrap());
    }
    assert_eq!(committed(&all), [(0, 1), (0, 2), (0, 3)], "what is under way is committed");
    assert_eq!(all.iter().filter(|said| **said == Said::Low).count(), 1);
    handle.shutdown(LONG).unwrap();
}
