use std::fs;

use super::history::{first, part, turn_of};
use super::*;

/// Turns of which `prepared` puts the first into tables.
const FLUSHED: u64 = 60;
const TURNS: u64 = 160;

/// A closed store with tables, journals cut to what was written.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    store.commit(&[first()]).unwrap();
    for turn in 1..=TURNS {
        store.commit(&[part(turn)]).unwrap();
        if turn == FLUSHED {
            for space in &store.engine.as_ref().unwrap().spaces {
                space.rotate_memtable_and_wait().unwrap();
            }
        }
    }
    drop(store);
    for journal in files(folder.path()).into_iter().filter(|path| is_journal(path)) {
        let bytes = fs::read(&journal).unwrap();
        let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        File::options().write(true).open(&journal).unwrap().set_len(len as u64).unwrap();
    }
    folder
}

fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { assert!(fs::copy(&path, &target).is_ok()) }
    }
}

/// Opens a copy of `folder` in which `harm` has changed the bytes of one file.
fn harmed(folder: &Path, file: &Path, harm: impl FnOnce(&mut Vec<u8>)) -> Result<u64, StoreError> {
    let copied = tempfile::tempdir().unwrap();
    copy(folder, copied.path());
    let target = copied.path().join(file.strip_prefix(folder).unwrap());
    let mut bytes = fs::read(&target).unwrap();
    harm(&mut bytes);
    fs::write(&target, bytes).unwrap();
    turn_of(&mut EmbeddedStore::open(copied.path(), options())?)
}

fn journal_of(folder: &Path) -> PathBuf {
    let journals: Vec<_> = files(folder).into_iter().filter(|path| is_journal(path)).collect();
    assert_eq!(journals.len(), 1, "so short a history fits one journal");
    journals.into_iter().next().unwrap()
}

/// Where the batches of the journal end.
fn batch_ends(journal: &Path) -> Vec<usize> {
    let bytes = fs::read(journal).unwrap();
    bytes.windows(4).enumerate().filter(|(_, window)| window == b"FJL\x03").map(|(at, _)| at + 4).collect()
}

#[test]
fn the_unharmed_history_is_at_its_end() {
    let folder = prepared();
    assert_eq!(harmed(folder.path(), &journal_of(folder.path()), |_| {}).unwrap(), TURNS);
}

#[test]
fn a_cut_journal_gives_what_was_committed_before_the_cut() {
    let folder = prepared();
    let journal = journal_of(folder.path());
    let ends = batch_ends(&journal);
    let last = ends.len() - 1;
    // Cuts in the last batches, one byte after the other where headers and trailers are.
    for cut in (ends[last - 2] - 30..ends[last]).step_by(97).chain((ends[last] - 20..ends[last]).step_by(3)) {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let turns = TURNS - (ends.len() - whole) as u64;
        let truncated = harmed(folder.path(), &journal, |bytes| bytes.truncate(cut)).unwrap();
        assert_eq!(truncated, turns, "cut at {cut}");
        let zeroed = harmed(folder.path(), &journal, |bytes| bytes[cut..].fill(0)).unwrap();
        assert!(zeroed == turns || (zeroed == turns + 1 && cut + 1 >= ends[whole]), "zeros from {cut}");
    }
}

#[test]
fn a_hole_in_the_last_write_drops_only_that() {
    let folder = prepared();
    let journal = journal_of(folder.path());
    let ends = batch_ends(&journal);
    let (from, to) = (ends[ends.len() - 2], ends[ends.len() - 1]);
    let found = harmed(folder.path(), &journal, |bytes| bytes[from + 100..to - 50].fill(0)).unwrap();
    assert_eq!(found, TURNS - 1);
}

#[test]
fn a_bad_byte_in_the_middle_of_the_journal_is_said_and_nothing_is_cut() {
    let folder = prepared();
    let journal = journal_of(folder.path());
    let ends = batch_ends(&journal);
    let last_start = ends[ends.len() - 2];
    for at in (0..last_start).step_by(last_start / 40).chain(0..14) {
        let result = harmed(folder.path(), &journal, |bytes| bytes[at] ^= 0x55);
        let error = result.expect_err("damage before the last batch is found");
        assert!(matches!(&error, StoreError::Damaged { place, .. } if place.starts_with("byte ")), "{error}");
    }
}

#[test]
fn a_bad_byte_anywhere_is_said_or_harmless() {
    let folder = prepared();
    let (mut said, mut harmless) = (0, 0);
    for file in files(folder.path()).into_iter().filter(|path| !is_journal(path) && !path.ends_with(LOCK_FILE)) {
        let len = fs::metadata(&file).unwrap().len() as usize;
        for at in (0..len).step_by((len / 5).max(1)) {
            match harmed(folder.path(), &file, |bytes| bytes[at] ^= 0x55) {
                // Bytes that nothing reads.
                Ok(turn) => {
                    assert_eq!(turn, TURNS, "{} at {at}", file.display());
                    harmless += 1;
                }
                Err(StoreError::Damaged { .. } | StoreError::Format { .. }) => said += 1,
                Err(other) => panic!("{} at {at}: {other}", file.display()),
            }
        }
    }
    assert!(said > harmless / 4, "{said} said, {harmless} harmless");
}

#[test]
fn a_missing_file_is_said() {
    let folder = prepared();
    for file in files(folder.path()) {
        let copied = tempfile::tempdir().unwrap();
        copy(folder.path(), copied.path());
        fs::remove_file(copied.path().join(file.strip_prefix(folder.path()).unwrap())).unwrap();
        match EmbeddedStore::open(copied.path(), options()).and_then(|mut store| turn_of(&mut store)) {
            Ok(turn) => {
                // Locks are made again; manifests before the current one are left over.
                let name = file.file_name().and_then(|name| name.to_str()).unwrap();
                let harmless = [LOCK_FILE, "lock"].contains(&name) || name.starts_with('v');
                assert!(harmless && turn == TURNS, "{}", file.display());
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Format { .. }), "{error}");
            }
        }
    }
}

#[test]
fn a_journal_that_is_no_journal_is_not_read_forever() {
    let folder = prepared();
    let journal = journal_of(folder.path());
    let noise: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // No batch is readable at all: taken for a first write that was not finished, over tables that are there.
    let found = harmed(folder.path(), &journal, |bytes| *bytes = noise);
    assert_eq!(found.unwrap(), FLUSHED);
}
