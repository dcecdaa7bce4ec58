//! What makes room for what, against plain sums.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { device_logs: 3, device_bytes: 20, logs: 5, bytes: 40, kept_ms: 100 };

fn log(device: u8, number: u32, bytes: u64, at_ms: u64) -> Kept {
    Kept {
        id: LogId(0),
        product: ProductKey::parse("p").expect("a name"),
        device: DeviceName::parse(&format!("d{device}")).expect("a name"),
        number,
        command: None,
        bytes,
        crc32: number,
        packing: None,
        unpacked_bytes: bytes,
        at_ms,
    }
}

fn put(shelf: &mut Shelf, kept: Kept) -> Result<LogId, ShelfError> {
    let (id, changes) = shelf.plan(kept)?;
    changes.into_iter().for_each(|change| shelf.apply(change));
    Ok(id)
}

fn numbers(shelf: &Shelf, device: u8) -> Vec<u32> {
    let Kept { product, device, .. } = log(device, 0, 0, 0);
    shelf.of_device(&product, &device).map(|log| log.number).collect()
}

#[test]
fn a_device_makes_room_for_itself_and_for_nobody_else() {
    let mut shelf = Shelf::new(LIMITS);
    for number in 1..=3 {
        assert_eq!(put(&mut shelf, log(1, number, 5, 0)), Ok(LogId(number.into())));
    }
    assert_eq!(put(&mut shelf, log(1, 3, 5, 0)), Err(ShelfError::Known(LogId(3))));
    assert_eq!(put(&mut shelf, log(1, 4, 5, 0)), Ok(LogId(4)), "three logs");
    assert_eq!(numbers(&shelf, 1), [2, 3, 4]);
    assert_eq!(put(&mut shelf, log(1, 5, 11, 0)), Ok(LogId(5)), "twenty bytes");
    assert_eq!(numbers(&shelf, 1), [4, 5]);
    assert_eq!(put(&mut shelf, log(1, 6, 21, 0)), Err(ShelfError::TooLong));
    assert_eq!(put(&mut shelf, log(2, 1, 20, 0)), Ok(LogId(6)));
    assert_eq!(put(&mut shelf, log(3, 1, 5, 0)), Err(ShelfError::Full), "of all");
    assert_eq!((numbers(&shelf, 1), shelf.counts()), (vec![4, 5], (3, 36)));
    assert_eq!(put(&mut shelf, log(1, 7, 9, 0)), Ok(LogId(7)), "its own make room");
    let Kept { product, device, .. } = log(1, 0, 0, 0);
    let other = log(2, 0, 0, 0).device;
    assert_eq!(shelf.drop_log(&product, &other, LogId(7)), None, "another's");
    assert!(shelf.drop_log(&product, &device, LogId(7)).is_some() && shelf.of(&product, &device, LogId(7)).is_none());
    assert_eq!(shelf.drop_device(&product, &device).len(), 1);
    assert_eq!(shelf.drop_all(|log| log.device == other).len(), 1);
    assert_eq!((shelf.counts(), put(&mut shelf, log(1, 1, 1, 0))), ((0, 0), Ok(LogId(8))));
}

#[test]
fn what_is_old_goes() {
    let mut shelf = Shelf::new(LIMITS);
    for at_ms in [1, 2, 3] {
        put(&mut shelf, log(1, at_ms, 1, at_ms.into())).expect("room");
    }
    assert_eq!(shelf.due(100, 9), []);
    assert_eq!((shelf.due(103, 2).len(), shelf.due(103, 2).len(), shelf.due(103, 2).len()), (2, 1, 0));
    assert_eq!(shelf.counts(), (0, 0));
}

proptest! {
    #[test]
    fn no_limit_is_passed(logs in proptest::collection::vec((0..4_u8, 1..9_u32, 1..25_u64, 0..50_u64), 0..60)) {
        let mut shelf = Shelf::new(LIMITS);
        for (device, number, bytes, at_ms) in logs {
            let (before, new) = (shelf.counts(), log(device, number, bytes, at_ms));
            let others = (0..4).filter(|other| *other != device);
            let others: Vec<_> = others.map(|other| (other, numbers(&shelf, other))).collect();
            if put(&mut shelf, new).is_err() {
                prop_assert_eq!(shelf.counts(), before);
            }
            for (other, kept) in others {
                prop_assert_eq!(numbers(&shelf, other), kept);
            }
            let sum: u64 = shelf.all().map(|log| log.bytes).sum();
            prop_assert_eq!(shelf.counts(), (shelf.all().count(), sum));
            prop_assert!(sum <= 40 && shelf.all().count() <= 5 && numbers(&shelf, device).len() <= 3);
            prop_assert_eq!(shelf.ages.len(), shelf.logs.len());
        }
    }
}
