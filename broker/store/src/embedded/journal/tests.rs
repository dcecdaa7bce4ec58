use std::fs;

use super::*;

/// A batch of one value, as the engine writes it.
fn batch(seqno: u64, value: &[u8]) -> Vec<u8> {
    let mut item = vec![ITEM, 0, 0];
    item.extend(1u64.to_le_bytes());
    item.extend(1u16.to_le_bytes());
    item.extend((value.len() as u32).to_le_bytes());
    item.extend((value.len() as u32).to_le_bytes());
    item.push(b'k');
    item.extend(value);
    let mut out = vec![START];
    out.extend(1u32.to_le_bytes());
    out.extend(seqno.to_le_bytes());
    out.extend(&item);
    out.push(END);
    out.extend(xxhash_rust::xxh3::xxh3_64(&item).to_le_bytes());
    out.extend(MAGIC);
    out
}

/// Checks a folder of journals, numbered from 3; yields the length of the last one afterwards.
fn check_journals(journals: &[Vec<u8>]) -> Result<u64, StoreError> {
    let folder = tempfile::tempdir().unwrap();
    for (id, bytes) in journals.iter().enumerate() {
        fs::write(folder.path().join(format!("{}.jnl", id + 3)), bytes).unwrap();
    }
    check(folder.path())?;
    let last = folder.path().join(format!("{}.jnl", journals.len() + 2));
    Ok(fs::metadata(last).unwrap().len())
}

fn place(result: Result<u64, StoreError>) -> String {
    match result {
        Err(StoreError::Damaged { place, .. }) => place,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whole_journals_are_left_as_they_are() {
    let two = [batch(4, b"one"), batch(9, &[7; 200_000])].concat();
    assert_eq!(check_journals(std::slice::from_ref(&two)).unwrap(), two.len() as u64);
    let padded = [two.clone(), vec![0; 1_000]].concat();
    assert_eq!(check_journals(&[padded.clone(), Vec::new()]).unwrap(), 0);
    assert_eq!(check_journals(std::slice::from_ref(&padded)).unwrap(), padded.len() as u64);
}

#[test]
fn an_unfinished_batch_is_cut_from_the_newest_journal_only() {
    let one = batch(4, b"one");
    let torn = [one.clone(), batch(5, b"two")[..20].to_vec(), vec![0; 50]].concat();
    assert_eq!(check_journals(std::slice::from_ref(&torn)).unwrap(), one.len() as u64);
    let place = place(check_journals(&[torn, batch(6, b"three")]));
    assert_eq!(place, format!("byte {}", one.len()));
}

#[test]
fn damage_before_a_whole_batch_is_said_even_when_its_length_lies() {
    for at in 0..batch(5, b"two").len() {
        let mut bad = batch(5, b"two");
        bad[at] ^= 0x81;
        let journal = [batch(4, b"one"), bad, batch(6, b"three")].concat();
        let place = place(check_journals(&[journal]));
        assert!(place.starts_with("byte "), "{place}");
    }
}

#[test]
fn batches_out_of_order_are_damage() {
    assert_eq!(
        place(check_journals(&[[batch(4, b"x"), batch(4, b"x")].concat()])),
        format!("byte {}", batch(4, b"x").len())
    );
}

#[test]
fn a_missing_journal_is_damage() {
    assert_eq!(place(check_journals(&[])), "*.jnl");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("3.jnl"), batch(4, b"one")).unwrap();
    fs::write(folder.path().join("5.jnl"), batch(8, b"one")).unwrap();
    assert_eq!(place(check(folder.path()).map(|()| 0)), "journal 4");
}
