//! Ways through the states, and a sequence of anything that can happen.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const KEPT_MS: u64 = 1000;

fn lamp() -> (ProductKey, DeviceName) {
    (ProductKey::parse("lamp").expect("a name"), DeviceName::parse("one").expect("a name"))
}

fn small() -> Book {
    Book::new(Limits { device_open: 4, device_kept: 2, commands: 8, kept_ms: KEPT_MS })
}

fn ask(book: &mut Book, kind: Kind, deadline_ms: u64, now_ms: u64) -> Result<CommandId, CommandError> {
    let (product, device) = lamp();
    let (id, changes) = book.plan((&product, &device), kind, None, deadline_ms, now_ms)?;
    changes.into_iter().for_each(|change| book.apply(change));
    Ok(id)
}

fn answer(book: &mut Book, text: &str, now_ms: u64) -> Result<Answered, ReplyError> {
    let (product, device) = lamp();
    book.answered(&product, &device, text.as_bytes(), now_ms)
}

fn came(book: &mut Book, now_ms: u64) -> Vec<CommandId> {
    let (product, device) = lamp();
    book.came(&product, &device, now_ms);
    book.to_send(now_ms, 99).into_iter().map(|command| command.id).collect()
}

fn state(book: &Book, id: CommandId) -> Option<State> {
    book.get(id).map(|command| command.state)
}

#[track_caller]
fn moved(answered: &Result<Answered, ReplyError>, to: State) {
    let Ok(Answered::Moved(id, changes)) = answered else { panic!("{answered:?}") };
    assert!(matches!(&changes[..], [Change::Put(command)] if command.state == to && command.id == *id), "{changes:?}");
}

#[test]
fn a_command_goes_out_until_it_is_answered() {
    let mut book = small();
    let id = ask(&mut book, Kind::Reboot, 10_000, 0).expect("asks");
    let payload = book.get(id).expect("there").payload();
    assert_eq!(payload, r#"{"id":1,"command":"reboot","arguments":null,"deadline":10}"#);
    assert_eq!(state(&book, id), Some(State::Queued));
    assert_eq!(came(&mut book, 1), [id]);
    assert_eq!(state(&book, id), Some(State::Queued), "nobody has said that it went out");
    let sent = book.sent(id, 2);
    assert!(matches!(&sent[..], [Change::Put(command)] if command.state == State::Sent && command.sends == 1));
    assert_eq!(book.to_send(9_000, 9), []);
    let other = ask(&mut book, Kind::Reset, 10_000, 2).expect("asks");
    book.asked(other, 2);
    assert_eq!(book.to_send(2, 9).into_iter().map(|command| command.id).collect::<Vec<_>>(), [other], "it alone");
    let (product, device) = lamp();
    assert!(book.cancel(&product, &device, other, 2).is_ok());
    book.asked(other, 2);
    assert_eq!(book.to_send(2, 9), []);
    assert_eq!(came(&mut book, 3), [id], "it may have been lost");
    book.sent(id, 4);
    moved(&answer(&mut book, r#"{"id":1,"state":"accepted","more":1}"#, 5), State::Accepted);
    assert_eq!(came(&mut book, 6), [], "it is the device's now");
    assert_eq!(answer(&mut book, r#"{"id":1,"state":"accepted"}"#, 6), Ok(Answered::Again), "said twice");
    assert_eq!(answer(&mut book, r#"{"id":1,"state":"rejected"}"#, 6), Err(ReplyError::OutOfPlace));
    moved(&answer(&mut book, r#"{"id":1,"state":"done","reason":"up again"}"#, 7), State::Done);
    assert_eq!(book.get(id).map(|command| (&*command.reason, command.sends)), Some(("up again", 2)));
    assert_eq!(came(&mut book, 8), []);
    assert_eq!(answer(&mut book, r#"{"id":1,"state":"failed"}"#, 8), Err(ReplyError::OutOfPlace));
    assert_eq!((book.next_due_ms(), book.counts()), (Some(2 + KEPT_MS), (0, 2)));
    let forgotten = |id| Due { expired: None, changes: vec![Change::Forget(product.clone(), device.clone(), id)] };
    assert_eq!(book.due(7 + KEPT_MS, 9), [forgotten(other), forgotten(id)]);
    assert_eq!((state(&book, id), book.next_due_ms()), (None, None));
}

#[test]
fn a_device_that_does_not_answer_hears_it_so_often_and_no_more() {
    let mut book = small();
    let id = ask(&mut book, Kind::Reboot, 10_000, 0).expect("asks");
    for _ in 0..SENDS_MAX {
        assert_eq!(came(&mut book, 1), [id]);
        book.sent(id, 1);
    }
    assert_eq!(came(&mut book, 1), []);
    assert_eq!(state(&book, id), Some(State::Sent));
}

#[test]
fn a_device_is_looked_for_while_it_may_be_there() {
    let mut book = small();
    let id = ask(&mut book, Kind::Reboot, 600_000, 0).expect("asks");
    assert_eq!(came(&mut book, 0), [id]);
    assert_eq!(book.to_send(599_999, 9), [], "given once");
    let mut now_ms = 0;
    // It is there and hasn't subscribed.
    for _ in 0..20 {
        book.not_heard(id, true, now_ms);
        now_ms = book.next_due_ms().expect("another look");
        assert_eq!(book.to_send(now_ms, 9).len(), 1);
    }
    assert!((90_000..600_000).contains(&now_ms), "{now_ms}");
    book.not_heard(id, false, now_ms);
    assert_eq!(book.next_due_ms(), Some(600_000), "it has gone");
    assert_eq!(came(&mut book, now_ms), [id]);
    let began_ms = now_ms;
    loop {
        book.not_heard(id, false, now_ms);
        let next_ms = book.next_due_ms().expect("a deadline at least");
        if next_ms == 600_000 {
            break;
        }
        now_ms = next_ms;
        assert_eq!(book.to_send(now_ms, 9).len(), 1);
    }
    assert!((5_000..20_000).contains(&(now_ms - began_ms)), "a few looks, and then when it comes");
}

#[test]
fn a_deadline_ends_it_and_so_does_who_asked_and_what_is_said_then_is_kept() {
    let mut book = small();
    let id = ask(&mut book, Kind::Wipe, 10, 0).expect("asks");
    assert_eq!(book.due(9, 9), []);
    assert_eq!(came(&mut book, 10), [], "too late to send");
    assert_eq!(answer(&mut book, r#"{"id":1,"state":"done"}"#, 10), Ok(Answered::Late(id, vec![])));
    let (product, device) = lamp();
    assert_eq!(book.cancel(&product, &device, id, 10), Err(CommandError::Ended));
    assert_eq!(book.due(10, 9)[0].expired, Some(id));
    assert_eq!(state(&book, id), Some(State::Expired));

    let id = ask(&mut book, Kind::Wipe, 100, 20).expect("asks");
    let other = DeviceName::parse("two").expect("a name");
    assert_eq!(book.cancel(&product, &other, id, 21), Err(CommandError::NoSuchCommand));
    assert!(book.cancel(&product, &device, id, 21).is_ok());
    assert_eq!(book.cancel(&product, &device, id, 22), Err(CommandError::Ended));
    assert_eq!((came(&mut book, 23), book.next_due_ms()), (vec![], Some(10 + KEPT_MS)));
    let mut late = |state: &str| answer(&mut book, &format!(r#"{{"id":2,"state":"{state}","reason":"r"}}"#), 24);
    let is_kept = |answered| matches!(answered, Ok(Answered::Late(_, changes)) if !changes.is_empty());
    assert!(is_kept(late("accepted")) && !is_kept(late("rejected")) && is_kept(late("done")));
    assert!(late("done") == Ok(Answered::Again) && !is_kept(late("failed")));
    assert_eq!(book.get(id).map(|command| (command.state, command.late)), Some((State::Cancelled, Some(State::Done))));
}

#[test]
fn each_fault_has_its_name() {
    let mut book = small();
    let (product, device) = lamp();
    let long = format!("\"{}\"", "x".repeat(4096));
    let plan = |book: &mut Book, arguments, deadline| {
        book.plan((&product, &device), Kind::Reset, arguments, deadline, 10).map(|(id, _)| id)
    };
    assert_eq!(plan(&mut book, Some("{"), 20), Err(CommandError::Arguments));
    assert_eq!(plan(&mut book, Some("1,\"x\":2"), 20), Err(CommandError::Arguments), "nothing can be smuggled in");
    assert_eq!(plan(&mut book, Some(&long), 20), Err(CommandError::Arguments));
    assert_eq!(plan(&mut book, None, 10), Err(CommandError::Deadline));
    assert_eq!(plan(&mut book, None, 11 + DEADLINE_MS_MAX), Err(CommandError::Deadline));
    assert_eq!("format".parse::<Kind>(), Err(CommandError::UnknownCommand));
    for _ in 0..4 {
        ask(&mut book, Kind::Reboot, 20, 10).expect("asks");
    }
    assert_eq!(plan(&mut book, None, 20), Err(CommandError::DeviceFull { most: 4 }));
    for text in ["", "{}", r#"{"id":1}"#, r#"{"id":"1","state":"done"}"#, r#"{"id":1,"state":"expired"}"#] {
        assert_eq!(answer(&mut book, text, 11), Err(ReplyError::Malformed), "{text}");
    }
    let long = format!(r#"{{"id":1,"state":"done","reason":"{}"}}"#, "x".repeat(2000));
    assert_eq!(answer(&mut book, &long, 11), Err(ReplyError::Malformed));
    assert_eq!(answer(&mut book, r#"{"id":99,"state":"done"}"#, 11), Err(ReplyError::Unknown));
    let other = DeviceName::parse("two").expect("a name");
    let stolen = book.answered(&product, &other, br#"{"id":1,"state":"done"}"#, 11);
    assert_eq!(stolen, Err(ReplyError::OthersCommand));
    assert!(book.has(&product, &device) && !book.has(&product, &other));
    assert_eq!(book.drop_devices(|_, gone| *gone == other), []);
    assert_eq!((book.clone().drop_device(&product, &device).len(), book.drop_device(&product, &other)), (4, vec![]));
    assert_eq!(book.drop_devices(|_, gone| *gone == device).len(), 4);
    assert_eq!((book.next_due_ms(), came(&mut book, 11), book.counts()), (None, vec![], (0, 0)));
    for kind in Kind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
}

#[test]
fn what_has_ended_makes_room_and_what_has_not_does_not() {
    let mut book = small();
    let (product, _) = lamp();
    let names: Vec<_> = (0..9).map(|n| DeviceName::parse(&format!("d{n}")).expect("a name")).collect();
    for name in &names[..8] {
        let (_, changes) = book.plan((&product, name), Kind::Reboot, None, 50, 0).expect("room");
        changes.into_iter().for_each(|change| book.apply(change));
    }
    let full = book.plan((&product, &names[8]), Kind::Reboot, None, 50, 0).map(drop);
    assert_eq!(full, Err(CommandError::Full { most: 8 }));
    assert!(book.cancel(&product, &names[3], CommandId(4), 2).is_ok());
    assert!(book.cancel(&product, &names[1], CommandId(2), 3).is_ok());
    let (id, changes) = book.plan((&product, &names[8]), Kind::Reboot, None, 50, 4).expect("room");
    assert_eq!(id, CommandId(9), "a refusal takes no number");
    assert_eq!(changes[0], Change::Forget(product.clone(), names[3].clone(), CommandId(4)));
    changes.into_iter().for_each(|change| book.apply(change));
    assert_eq!(book.counts(), (7, 1));
    // Of one device, too.
    let mut book = small();
    let (product, device) = lamp();
    for at in 1..=3 {
        let id = ask(&mut book, Kind::Reset, 900, at).expect("room");
        let changes = book.cancel(&product, &device, id, at).expect("open");
        assert_eq!(changes.len(), if at == 3 { 2 } else { 1 });
    }
    let left: Vec<_> = book.of_device(&product, &device).map(|command| command.id.0).collect();
    assert_eq!(left, [2, 3]);
}

#[derive(Clone, Debug)]
enum Act {
    Ask(u64),
    Came,
    Answer(u32, u8),
    Cancel(u32),
    Due,
    Wait(u64),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (1..1000_u64).prop_map(Act::Ask),
        Just(Act::Came),
        (1..12_u32, 0..4_u8).prop_map(|(id, state)| Act::Answer(id, state)),
        (1..12_u32).prop_map(Act::Cancel),
        Just(Act::Due),
        (0..KEPT_MS).prop_map(Act::Wait),
        Just(Act::Restart),
    ]
}

/// Changes of the book, in its order, to the store and back.
struct Stored {
    commands: BTreeMap<CommandId, Command>,
    ended: BTreeSet<CommandId>,
    given: u32,
}

impl Stored {
    fn commit(&mut self, change: Change) {
        match change {
            Change::Put(command) => {
                let before = self.commands.get(&command.id).map(|before| before.state);
                let has_ended = before.is_some_and(State::is_end);
                assert!(!has_ended || before == Some(command.state), "it has left an end");
                assert!(!self.ended.contains(&command.id) || has_ended, "it was forgotten");
                if command.state.is_end() {
                    self.ended.insert(command.id);
                }
                self.commands.insert(command.id, *command);
            }
            Change::Forget(_, _, id) => {
                assert!(self.commands.remove(&id).is_some_and(|command| command.state.is_end()), "nothing is lost");
            }
            Change::Given(id) => {
                assert!(id.0 > self.given);
                self.given = id.0;
            }
        }
    }
}

proptest! {
    /// A restart gives back what was there; nothing leaves an end, and nothing is forgotten that hasn't ended.
    #[test]
    fn what_ended_stays_ended(acts in proptest::collection::vec(act(), 0..80)) {
        let (product, device) = lamp();
        let mut book = small();
        let mut now_ms = 0;
        let mut stored = Stored { commands: BTreeMap::new(), ended: BTreeSet::new(), given: 0 };
        for act in acts {
            let changes = match act {
                Act::Ask(wait) => {
                    let planned = book.plan((&product, &device), Kind::Reboot, None, now_ms + wait, now_ms);
                    let changes = planned.map(|(_, changes)| changes).unwrap_or_default();
                    changes.iter().cloned().for_each(|change| book.apply(change));
                    changes
                }
                Act::Came => {
                    let ids = came(&mut book, now_ms);
                    prop_assert!(ids.iter().all(|id| !stored.ended.contains(id)));
                    ids.into_iter().flat_map(|id| book.sent(id, now_ms)).collect()
                }
                Act::Answer(id, state) => {
                    let state = ["accepted", "done", "failed", "rejected"][usize::from(state)];
                    match answer(&mut book, &format!(r#"{{"id":{id},"state":"{state}"}}"#), now_ms) {
                        Ok(Answered::Moved(_, changes) | Answered::Late(_, changes)) => changes,
                        Ok(Answered::Again) | Err(_) => vec![],
                    }
                }
                Act::Cancel(id) => book.cancel(&product, &device, CommandId(id), now_ms).unwrap_or_default(),
                Act::Due => book.due(now_ms, 3).into_iter().flat_map(|due| due.changes).collect(),
                Act::Wait(ms) => {
                    now_ms += ms;
                    vec![]
                }
                Act::Restart => {
                    book = small();
                    book.apply(Change::Given(CommandId(stored.given)));
                    let commands = stored.commands.values().cloned();
                    commands.for_each(|command| book.apply(Change::Put(Box::new(command))));
                    vec![]
                }
            };
            changes.into_iter().for_each(|change| stored.commit(change));
            let found: Vec<_> = book.of_device(&product, &device).cloned().collect();
            prop_assert_eq!(found, stored.commands.values().cloned().collect::<Vec<_>>());
            let (open, ended) = book.counts();
            prop_assert!(open <= 4 && ended <= 2 && open + ended == stored.commands.len());
        }
    }
}
