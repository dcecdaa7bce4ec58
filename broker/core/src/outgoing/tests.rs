//! The queue against a plain model: a list in which every entry keeps all that is known of it.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Push(QoS, bool),
    Commit(usize),
    Send,
    PubAck(usize),
    PubRec(usize),
    PubComp(usize),
    Reconnect,
}

/// What the model knows of one message.
#[derive(Clone, Debug)]
struct Known {
    qos: QoS,
    committed: bool,
    released: bool,
    release_committed: bool,
    sent: bool,
    done: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let qos = prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    prop_oneof![
        3 => (qos, any::<bool>()).prop_map(|(qos, durable)| Step::Push(qos, durable)),
        3 => any::<usize>().prop_map(Step::Commit),
        6 => Just(Step::Send),
        2 => any::<usize>().prop_map(Step::PubAck),
        2 => any::<usize>().prop_map(Step::PubRec),
        2 => any::<usize>().prop_map(Step::PubComp),
        1 => Just(Step::Reconnect),
    ]
}

fn entry(qos: QoS, durable: bool) -> Entry {
    Entry { qos, phase: if durable { Phase::AwaitingCommit } else { Phase::Ready }, ..Entry::done() }
}

/// What the model would send next: the first unsent entry, if it may be said.
fn expected(model: &[Known], window: usize) -> Option<(usize, bool)> {
    let under_way = model.iter().filter(|known| known.sent && !known.done).count();
    let (index, known) = model.iter().enumerate().find(|(_, known)| !known.sent && !known.done)?;
    match (known.released, known.release_committed, known.committed) {
        (true, true, _) => Some((index, true)),
        (true, false, _) | (false, _, false) => None,
        (false, _, true) => (under_way < window).then_some((index, false)),
    }
}

const WINDOW: u16 = 3;

/// Drives both, from a sequence number near the end of the identifiers' range, so that they wrap.
fn run(steps: Vec<Step>, start: u64) {
    let mut queue = Outgoing::starting_at(Seq(start));
    let mut model: Vec<Known> = Vec::new();
    let at = |index: usize| Seq(start + index as u64);
    for step in steps {
        let pick = |n: usize, model: &[Known]| (!model.is_empty()).then(|| n % model.len());
        match step {
            Step::Push(qos, durable) => {
                let seq = queue.push(entry(qos, durable));
                assert_eq!(seq, at(model.len()));
                let known = Known {
                    qos,
                    committed: !durable,
                    released: false,
                    release_committed: false,
                    sent: false,
                    done: false,
                };
                model.push(known);
            }
            Step::Commit(n) => {
                let Some(index) = pick(n, &model) else { continue };
                let Some(known) = model.get_mut(index) else { continue };
                queue.commit(at(index));
                if known.done {
                } else if !known.committed {
                    known.committed = true;
                } else if known.released {
                    known.release_committed = true;
                }
            }
            Step::Send => {
                let next = queue.next(WINDOW);
                let wanted = expected(&model, usize::from(WINDOW))
                    .map(|(index, release)| if release { Next::Release(at(index)) } else { Next::Publish(at(index)) });
                assert_eq!(next, wanted);
                if let Some(Next::Publish(seq) | Next::Release(seq)) = next {
                    queue.mark_sent(seq);
                    model[(seq.0 - start) as usize].sent = true;
                }
            }
            Step::PubAck(n) | Step::PubRec(n) | Step::PubComp(n) => {
                let Some(index) = pick(n, &model) else { continue };
                acknowledge(&mut queue, &step, at(index), &mut model[index]);
            }
            Step::Reconnect => {
                queue.rewind();
                model.iter_mut().for_each(|known| known.sent = false);
            }
        }
        let unfinished = model.iter().filter(|known| !known.done).count();
        assert_eq!(queue.messages(), unfinished);
        assert_eq!(queue.is_empty(), unfinished == 0);
        let waiting = model.iter().any(|known| !known.sent && !known.done);
        assert!(waiting || queue.next(u16::MAX).is_none());
    }
}

fn acknowledge(queue: &mut Outgoing, step: &Step, seq: Seq, known: &mut Known) {
    let id = packet_id(seq);
    let here = known.sent && !known.done;
    match step {
        Step::PubAck(_) => {
            let good = here && known.qos == QoS::AtLeastOnce;
            assert_eq!(queue.puback(id) == Acked::Known(seq), good);
            if good {
                assert!(queue.finish(seq).is_some());
                known.done = true;
            }
        }
        Step::PubRec(_) => {
            let good = here && known.qos == QoS::ExactlyOnce;
            let acked = queue.pubrec(id);
            assert_eq!(acked == Acked::Known(seq), good && !known.released);
            assert_eq!(acked == Acked::Again(seq), good && known.released);
            if acked == Acked::Known(seq) {
                queue.release(seq, true);
                (known.released, known.release_committed) = (true, false);
            }
        }
        _ => {
            let good = here && known.qos == QoS::ExactlyOnce && known.release_committed;
            assert_eq!(queue.pubcomp(id) == Acked::Known(seq), good);
            if good {
                assert!(queue.finish(seq).is_some());
                known.done = true;
            }
        }
    }
}

proptest! {
    #[test]
    fn the_queue_does_what_a_list_would(steps in proptest::collection::vec(step(), 0..120), start in 65_500_u64..65_570) {
        run(steps, start);
    }
}

#[test]
fn identifiers_run_from_1_to_65535_and_again() {
    assert_eq!(packet_id(Seq(0)).get(), 1);
    assert_eq!(packet_id(Seq(65_534)).get(), 65_535);
    assert_eq!(packet_id(Seq(65_535)).get(), 1);
}

#[test]
fn no_identifier_is_used_twice_at_once() {
    let mut queue = Outgoing::default();
    let first = queue.push(entry(QoS::AtLeastOnce, false));
    for _ in 0..70_000 {
        queue.push(entry(QoS::AtLeastOnce, false));
    }
    while let Some(Next::Publish(seq)) = queue.next(u16::MAX) {
        queue.mark_sent(seq);
        if seq != first {
            queue.finish(seq);
        }
    }
    // All but the first are finished, and the identifier of the first is the next one's: that one waits.
    assert_eq!(queue.messages(), 70_001 - 65_534);
    queue.finish(first);
    assert!(queue.next(u16::MAX).is_some());
}
