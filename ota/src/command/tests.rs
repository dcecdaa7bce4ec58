//! Ways through the states, and a sequence of anything that can happen.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn lamp() -> (ProductKey, DeviceName) {
    (ProductKey::parse("lamp").expect("a name"), DeviceName::parse("one").expect("a name"))
}

fn ask(book: &mut Book, kind: Kind, deadline_ms: u64, now_ms: u64) -> Result<CommandId, CommandError> {
    let (product, device) = lamp();
    let (id, changes) = book.plan((&product, &device), kind, None, deadline_ms, now_ms)?;
    changes.into_iter().for_each(|change| book.apply(change));
    Ok(id)
}

fn answer(book: &mut Book, text: &str, now_ms: u64) -> Result<Option<Change>, CommandError> {
    let (product, device) = lamp();
    book.answered(&product, &device, text.as_bytes(), now_ms)
}

fn came(book: &mut Book, now_ms: u64) -> Vec<CommandId> {
    let (product, device) = lamp();
    book.came(&product, &device, now_ms).into_iter().map(|command| command.id).collect()
}

fn state(book: &Book, id: CommandId) -> Option<State> {
    book.get(id).map(|command| command.state)
}

#[test]
fn a_command_goes_out_until_it_is_answered() {
    let mut book = Book::default();
    let id = ask(&mut book, Kind::Reboot, 10_000, 0).expect("asks");
    let payload = book.get(id).expect("there").payload();
    assert_eq!(payload, r#"{"id":1,"command":"reboot","arguments":null,"deadline":10}"#);
    assert_eq!(state(&book, id), Some(State::Queued));
    assert_eq!(came(&mut book, 1), [id]);
    assert_eq!(state(&book, id), Some(State::Sent));
    assert_eq!(came(&mut book, 2), [id], "it may have been lost");
    let accepted = answer(&mut book, r#"{"id":1,"state":"accepted","more":1}"#, 3).expect("takes");
    assert!(matches!(accepted, Some(Change::Put(command)) if command.state == State::Accepted));
    assert_eq!(answer(&mut book, r#"{"id":1,"state":"accepted"}"#, 3), Ok(None), "said twice");
    assert_eq!(answer(&mut book, r#"{"id":1,"state":"rejected"}"#, 3), Err(CommandError::NotNow));
    let (product, device) = lamp();
    let done = answer(&mut book, r#"{"id":1,"state":"done","reason":"up again"}"#, 4);
    assert_eq!(done, Ok(Some(Change::End(product, device, id))));
    assert_eq!(book.get(id).map(|command| &*command.reason), Some("up again"));
    assert_eq!(came(&mut book, 5), []);
    assert_eq!(answer(&mut book, r#"{"id":1,"state":"failed"}"#, 5), Err(CommandError::NotNow));
    assert_eq!(book.next_due_ms(), Some(4 + KEPT_MS));
    assert_eq!(book.due(4 + KEPT_MS, 9), []);
    assert_eq!(state(&book, id), None, "forgotten");
}

#[test]
fn a_deadline_ends_it() {
    let mut book = Book::default();
    let id = ask(&mut book, Kind::Wipe, 10, 0).expect("asks");
    assert_eq!(book.due(9, 9), []);
    assert_eq!(came(&mut book, 10), [], "too late to send");
    assert_eq!(answer(&mut book, r#"{"id":1,"state":"done"}"#, 10), Err(CommandError::NotNow));
    let (product, device) = lamp();
    assert_eq!(book.due(10, 9), [(id, Change::End(product, device, id))]);
    assert_eq!(state(&book, id), Some(State::Expired));
}

#[test]
fn each_fault_has_its_name() {
    let mut book = Book::default();
    let (product, device) = lamp();
    let long = format!("\"{}\"", "x".repeat(4096));
    let plan = |book: &Book, arguments, deadline| {
        book.plan((&product, &device), Kind::Reset, arguments, deadline, 10).map(|(id, _)| id)
    };
    assert_eq!(plan(&book, Some("{"), 20), Err(CommandError::Arguments));
    assert_eq!(plan(&book, Some("1,\"x\":2"), 20), Err(CommandError::Arguments), "nothing can be smuggled in");
    assert_eq!(plan(&book, Some(&long), 20), Err(CommandError::Arguments));
    assert_eq!(plan(&book, None, 10), Err(CommandError::Deadline));
    assert_eq!(plan(&book, None, 11 + DEADLINE_MS_MAX), Err(CommandError::Deadline));
    assert_eq!("format".parse::<Kind>(), Err(CommandError::UnknownCommand));
    for _ in 0..DEVICE_OPEN_MAX {
        ask(&mut book, Kind::Reboot, 20, 10).expect("asks");
    }
    assert_eq!(plan(&book, None, 20), Err(CommandError::DeviceFull));
    for text in ["", "{}", r#"{"id":1}"#, r#"{"id":"1","state":"done"}"#, r#"{"id":1,"state":"expired"}"#] {
        assert_eq!(answer(&mut book, text, 11), Err(CommandError::Malformed), "{text}");
    }
    let long = format!(r#"{{"id":1,"state":"done","reason":"{}"}}"#, "x".repeat(2000));
    assert_eq!(answer(&mut book, &long, 11), Err(CommandError::Malformed));
    assert_eq!(answer(&mut book, r#"{"id":99,"state":"done"}"#, 11), Err(CommandError::NoSuchCommand));
    let other = DeviceName::parse("two").expect("a name");
    let stolen = book.answered(&product, &other, br#"{"id":1,"state":"done"}"#, 11);
    assert_eq!(stolen, Err(CommandError::NoSuchCommand), "another device's");
    assert_eq!(book.drop_device(&product, &device).len(), DEVICE_OPEN_MAX);
    assert_eq!((book.next_due_ms(), came(&mut book, 11)), (None, vec![]));
    for kind in Kind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
}

#[derive(Clone, Debug)]
enum Act {
    Ask(u64),
    Came,
    Answer(u32, u8),
    Due,
    Wait(u64),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (1..1000_u64).prop_map(Act::Ask),
        Just(Act::Came),
        (1..12_u32, 0..4_u8).prop_map(|(id, state)| Act::Answer(id, state)),
        Just(Act::Due),
        (0..KEPT_MS).prop_map(Act::Wait),
        Just(Act::Restart),
    ]
}

proptest! {
    /// A restart gives back what hadn't ended, and nothing that had; nothing leaves an end.
    #[test]
    fn what_ended_stays_ended(acts in proptest::collection::vec(act(), 0..80)) {
        let mut book = Book::default();
        let (mut now_ms, mut stored, mut ended) = (0, BTreeMap::new(), BTreeSet::new());
        let mut given = 0;
        for act in acts {
            let mut changes = Vec::new();
            match act {
                Act::Ask(wait) => {
                    let (product, device) = lamp();
                    if let Ok((_, planned)) = book.plan((&product, &device), Kind::Reboot, None, now_ms + wait, now_ms) {
                        changes.extend(planned.clone());
                        planned.into_iter().for_each(|change| book.apply(change));
                    }
                }
                Act::Came => {
                    for id in came(&mut book, now_ms) {
                        prop_assert!(!ended.contains(&id));
                    }
                }
                Act::Answer(id, state) => {
                    let state = ["accepted", "done", "failed", "rejected"][usize::from(state)];
                    changes.extend(answer(&mut book, &format!(r#"{{"id":{id},"state":"{state}"}}"#), now_ms).ok().flatten());
                }
                Act::Due => changes.extend(book.due(now_ms, 3).into_iter().map(|(_, change)| change)),
                Act::Wait(ms) => now_ms += ms,
                Act::Restart => {
                    book = Book::default();
                    book.apply(Change::Given(CommandId(given)));
                    stored.values().cloned().for_each(|command| book.apply(Change::Put(command)));
                }
            }
            for change in changes {
                match change {
                    Change::Put(command) => {
                        prop_assert!(!ended.contains(&command.id));
                        stored.insert(command.id, command);
                    }
                    Change::End(_, _, id) => {
                        prop_assert!(ended.insert(id), "ended twice");
                        stored.remove(&id);
                    }
                    Change::Given(id) => {
                        prop_assert!(id.0 > given);
                        given = id.0;
                    }
                }
            }
        }
    }
}
